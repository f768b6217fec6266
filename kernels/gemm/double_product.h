// Products of doubles for blocked factorizations, each call on its own thread.
//
//   PackDoubleTiles(b, tiles);                         // b: [k, n], k <= 128
//   SubtractProduct({panel, m, k}, {tiles, k * 16, n / 16}, c, c_stride);
//
// Panels are rows of up to 128 values, 128 apart, so that the inner loop finds
// row r at a constant distance. Tiles are 16 columns: [k][16].
#ifndef NIBBLE_KERNELS_GEMM_DOUBLE_PRODUCT_H_
#define NIBBLE_KERNELS_GEMM_DOUBLE_PRODUCT_H_

#include <cstdint>

#include "tensor/view.h"

namespace nibble {

// A group of 12 rows takes 12 KiB and a tile 16: both stay in L1.
inline constexpr int64_t kDoubleDepth = 128;
inline constexpr int64_t kDoubleTile = 16;  // columns

struct DoublePanel {
  const double* values;  // [rows][kDoubleDepth]
  int64_t rows;
  int64_t depth;  // k, at most kDoubleDepth
};

struct DoubleTiles {
  const double* values;  // [count][...][16], aligned to 64 bytes
  int64_t stride;        // doubles from tile to tile, a multiple of 8
  int64_t count;
};

// tiles[j / 16][k][j % 16] = b[k][j]; zero where j >= b.cols. A tile takes
// b.rows * 16 doubles.
void PackDoubleTiles(MatrixView<const double> b, double* tiles);

// c[r][j] -= sum_k a[r][k] b[k][j], with all sums in the order of k. c:
// [a.rows, 16 * b.count], rows `c_stride` apart.
void SubtractProduct(const DoublePanel& a, const DoubleTiles& b, double* c,
                     int64_t c_stride);

// Solves x r^T = h for 16 rows x at once. `tile` [size][16] is h^T, then x^T;
// row j of `columns` is column j of r, upper triangular, down to its diagonal.
void SolveUpperTile(MatrixView<const double> columns, double* tile);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_DOUBLE_PRODUCT_H_
