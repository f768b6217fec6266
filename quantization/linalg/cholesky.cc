#include "quantization/linalg/cholesky.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/log/check.h"
#include "kernels/gemm/double_product.h"

namespace nibble {
namespace {

// Columns that are factored together: the depth of the products that take them
// out of the rest. Blocks begin at multiples of it.
constexpr int64_t kBlock = kDoubleDepth;
constexpr int64_t kTileDoubles = kBlock * kDoubleTile;

// Rows of one call, whole groups of 12 and of 6; 96 KiB of a panel.
constexpr int64_t kStripRows = 96;
// Tiles that pass over them: 128 KiB.
constexpr int64_t kTilesPerCall = 8;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

double* DoubleScratch(int64_t count, ThreadPool& pool) {
  return reinterpret_cast<double*>(
      pool.Scratch(static_cast<size_t>(count) * sizeof(double)));
}

// FactorUpper of one block.
bool FactorBlock(MatrixView<double> d) {
  double column[kBlock];
  for (int64_t k = d.rows - 1; k >= 0; --k) {
    const double pivot = d.row(k)[k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    d.row(k)[k] = root;
    for (int64_t i = 0; i < k; ++i) {
      column[i] = d.row(i)[k] / root;
      d.row(i)[k] = column[i];
    }
    for (int64_t i = 0; i < k; ++i) {
      double* row = d.row(i);
      const double factor = column[i];
      for (int64_t j = i; j < k; ++j) row[j] -= factor * column[j];
    }
  }
  return true;
}

// InvertUpper of one block, row by row from the last: r_ii u_i = e_i - sum_k>i
// r_ik u_k.
void InvertBlock(MatrixView<double> r) {
  double sums[kBlock];
  for (int64_t i = r.rows - 1; i >= 0; --i) {
    double* const row = r.row(i);
    const double scale = 1 / row[i];
    std::fill(sums + i, sums + r.cols, 0.0);
    for (int64_t k = i + 1; k < r.cols; ++k) {
      const double* other = r.row(k);
      for (int64_t j = k; j < r.cols; ++j) sums[j] += row[k] * other[j];
    }
    row[i] = scale;
    for (int64_t j = i + 1; j < r.cols; ++j) row[j] = -sums[j] * scale;
  }
}

// Columns [first, first + size) of h, above their own block, become those of R.
// `tiles` gets their transpose and `panel` [first][kBlock] a copy; `columns`
// [kBlock][kBlock] is scratch.
void SolveColumns(MatrixView<double> h, int64_t first, int64_t size,
                  double* tiles, double* panel, double* columns,
                  ThreadPool& pool) {
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = i; j < size; ++j) {
      columns[j * kBlock + i] = h.row(first + i)[first + j];
    }
  }
  const MatrixView<const double> block(columns, size, size, kBlock);
  pool.ParallelForStealing(
      first / kDoubleTile, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          double* const tile = tiles + t * kTileDoubles;
          const int64_t row = t * kDoubleTile;
          for (int64_t i = 0; i < kDoubleTile; ++i) {
            const double* in = h.row(row + i) + first;
            for (int64_t k = 0; k < size; ++k)
              tile[k * kDoubleTile + i] = in[k];
          }
          SolveUpperTile(block, tile);
          for (int64_t i = 0; i < kDoubleTile; ++i) {
            double* out = h.row(row + i) + first;
            for (int64_t k = 0; k < size; ++k)
              out[k] = tile[k * kDoubleTile + i];
            std::memcpy(panel + (row + i) * kBlock, out, size * sizeof(double));
          }
        }
      });
}

// h -= panel panel^T, above the diagonal and a little below it.
void SubtractColumns(MatrixView<double> h, int64_t size, const double* tiles,
                     const double* panel, ThreadPool& pool) {
  const int64_t strips = CeilDiv(h.rows, kStripRows);
  const int64_t all_tiles = h.rows / kDoubleTile;
  const int64_t calls = CeilDiv(all_tiles, kTilesPerCall);
  pool.ParallelForStealing(
      strips * calls, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = i / calls * kStripRows;
          const int64_t last =
              std::min(all_tiles, (i % calls + 1) * kTilesPerCall);
          // The diagonal enters at this tile.
          const int64_t tile =
              std::max(i % calls * kTilesPerCall, row / kDoubleTile);
          if (tile >= last) continue;
          SubtractProduct(
              {panel + row * kBlock, std::min(kStripRows, h.rows - row), size},
              {tiles + tile * kTileDoubles, kTileDoubles, last - tile},
              h.row(row) + tile * kDoubleTile, h.stride);
        }
      });
}

// What InvertColumns works with.
struct InverseColumns {
  MatrixView<double> r;
  int64_t first;        // of the columns, a multiple of kBlock
  int64_t size;         // at most kBlock
  const double* tiles;  // R[0, first) of these columns: [tiles][first][16]
  const double* block;  // minus their own block's inverse: [tiles][size][16]
};

// Rows [row, row + rows) of the columns above their block:
// -(U[0, first) R) U_block. `memory` is three panels of kStripRows.
void InvertStrip(const InverseColumns& c, int64_t row, int64_t rows,
                 double* memory) {
  constexpr int64_t kPanel = kStripRows * kBlock;
  double* const in = memory;
  double* const product = memory + kPanel;
  double* const out = memory + 2 * kPanel;
  std::fill(product, product + 2 * kPanel, 0.0);
  const int64_t tiles = CeilDiv(c.size, kDoubleTile);
  for (int64_t k = row / kBlock * kBlock; k < c.first; k += kBlock) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t zeros = std::clamp<int64_t>(row + i - k, 0, kBlock);
      std::fill(in + i * kBlock, in + i * kBlock + zeros, 0.0);
      std::memcpy(in + i * kBlock + zeros, c.r.row(row + i) + k + zeros,
                  (kBlock - zeros) * sizeof(double));
    }
    SubtractProduct({in, rows, kBlock},
                    {c.tiles + k * kDoubleTile, c.first * kDoubleTile, tiles},
                    product, kBlock);
  }
  SubtractProduct({product, rows, c.size},
                  {c.block, c.size * kDoubleTile, tiles}, out, kBlock);
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(c.r.row(row + i) + c.first, out + i * kBlock,
                c.size * sizeof(double));
  }
}

}  // namespace

bool FactorUpper(MatrixView<double> h, ThreadPool& pool) {
  CHECK_EQ(h.rows, h.cols);
  const int64_t n = h.rows;
  if (n == 0) return true;
  const int64_t begin = (n - 1) / kBlock * kBlock;
  double* const tiles = DoubleScratch((2 * begin + kBlock) * kBlock, pool);
  double* const panel = tiles + begin * kBlock;
  double* const columns = panel + begin * kBlock;
  for (int64_t first = begin; first >= 0; first -= kBlock) {
    const int64_t size = std::min(kBlock, n - first);
    if (!FactorBlock(h.Rows(first, size).Columns(first, size))) return false;
    if (first == 0) break;
    SolveColumns(h, first, size, tiles, panel, columns, pool);
    SubtractColumns(h.Rows(0, first).Columns(0, first), size, tiles, panel,
                    pool);
  }
  for (int64_t i = 1; i < n; ++i) std::fill(h.row(i), h.row(i) + i, 0.0);
  return true;
}

void InvertUpper(MatrixView<double> r, ThreadPool& pool) {
  CHECK_EQ(r.rows, r.cols);
  const int64_t n = r.rows;
  constexpr int64_t kThreadDoubles = 3 * kStripRows * kBlock;
  double* const tiles = DoubleScratch(
      n * kBlock + kBlock * kBlock + pool.threads() * kThreadDoubles, pool);
  double* const block_tiles = tiles + n * kBlock;
  double* const memory = block_tiles + kBlock * kBlock;
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t size = std::min(kBlock, n - first);
    const MatrixView<double> block = r.Rows(first, size).Columns(first, size);
    InvertBlock(block);
    if (first == 0) continue;
    // Zeros below the diagonal, and the sign.
    std::fill(memory, memory + kBlock * kBlock, 0.0);
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = i; j < size; ++j)
        memory[i * kBlock + j] = -block.row(i)[j];
    }
    PackDoubleTiles({memory, size, size, kBlock}, block_tiles);
    const MatrixView<const double> above =
        r.Rows(0, first).Columns(first, size);
    pool.ParallelFor(
        CeilDiv(size, kDoubleTile), [&](int64_t t, int64_t end, int) {
          const int64_t column = t * kDoubleTile;
          const int64_t count = std::min(size, end * kDoubleTile) - column;
          PackDoubleTiles(above.Columns(column, count), tiles + column * first);
        });
    const InverseColumns columns = {r, first, size, tiles, block_tiles};
    pool.ParallelForStealing(CeilDiv(first, kStripRows), 1,
                             [&](int64_t begin, int64_t end, int thread) {
                               for (int64_t i = begin; i < end; ++i) {
                                 const int64_t row = i * kStripRows;
                                 InvertStrip(columns, row,
                                             std::min(kStripRows, first - row),
                                             memory + thread * kThreadDoubles);
                               }
                             });
  }
}

bool UpperInverseFactor(MatrixView<double> h, ThreadPool& pool) {
  if (!FactorUpper(h, pool)) return false;
  InvertUpper(h, pool);
  return true;
}

}  // namespace nibble
