// What one variant of the matrix product is, and what it is given.
#ifndef NIBBLE_KERNELS_MATMUL_KERNEL_H_
#define NIBBLE_KERNELS_MATMUL_KERNEL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu.h"
#include "kernels/matmul/packed_layout.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

namespace nibble {

// `rows` rows cut into as few groups of at most `max_rows` as possible, sizes
// within one of each other, larger ones first.
struct RowGroups {
  RowGroups(int64_t rows, int64_t max_rows)
      : rows(rows), count(CeilDiv(rows, max_rows)) {}

  int64_t Begin(int64_t group) const {
    return group * (rows / count) + std::min(group, rows % count);
  }
  int64_t Size(int64_t group) const { return Begin(group + 1) - Begin(group); }
  int64_t MaxSize() const { return Size(0); }

  int64_t rows;
  int64_t count;
};

// One product: y = panel * weights^T, as packed_layout.h draws the operands.
struct Product {
  const std::byte* weights;  // [tiles][steps][64 bytes]
  const std::byte* panel;    // activations, packed in `groups`
  RowGroups groups;
  int64_t inputs;
  int64_t outputs;
  float* y;  // [groups.rows, outputs], rows y_stride apart
  int64_t y_stride;
  const float* bias;  // [outputs] or null
  bool accumulate;
};

// Computes the outputs of tiles [first_tile, end_tile) for all rows.
// `totals` is working memory of the calling thread: KernelTotals() floats.
using MultiplyFunction = void (*)(const Product& product, int64_t first_tile,
                                  int64_t end_tile, float* totals);

// One row of the table of variants.
struct MatMulKernel {
  const char* name;
  WeightFormat weights;
  DType panel;  // how it wants activations: kF32, or kBF16 with bf16 weights
  Isa isa;
  int64_t highway_target;  // 0 for the reference
  int64_t max_rows;        // per group
  MultiplyFunction multiply;
};

// Tiles that pass over a block of K of all rows before the next block, so that
// the rows' activations are read from L2 for all but the first of them. Their
// totals wait in `totals`: 128 KiB at 512 rows. 2, 4 and 8 measure alike.
inline constexpr int64_t kTilesInFlight = 4;

constexpr int64_t KernelTotals(int64_t rows) {
  return kTilesInFlight * kTileOutputs * rows;
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_KERNEL_H_
