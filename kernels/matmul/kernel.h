// What one variant of the matrix product is, and what it is given.
#ifndef NIBBLE_KERNELS_MATMUL_KERNEL_H_
#define NIBBLE_KERNELS_MATMUL_KERNEL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu.h"
#include "kernels/matmul/panel_layout.h"
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

// What rounding cut off a value of an int8 panel that was far larger than the
// rest of its group: x = scale * value + excess.
struct Outlier {
  int32_t input;  // k
  int32_t group;  // of the weights
  float excess;
};

struct RowOutlier {
  Outlier outlier;
  int32_t row;
};

// Activations as kernels read them; panel_layout.h draws them.
struct Panel {
  RowGroups groups;
  const std::byte* values;  // f32, bf16 or int8
  // Of int8 panels, for each group of rows, [groups of the weights][rows of the
  // group]: x = scale * value save for outliers, and minus the sum of the
  // values. A group with a NaN or an infinity has scale NaN and values 0.
  const float* scales = nullptr;
  const int32_t* minus_sums = nullptr;
  // Of int8 panels, for each row, the first outlier_counts[row] of [groups of
  // the weights], inputs ascending. Kernels leave them out: outliers.h.
  const Outlier* outliers = nullptr;
  const int32_t* outlier_counts = nullptr;
  // Of many rows, all of them once more: inputs ascending, then rows. Or null.
  const RowOutlier* sorted_outliers = nullptr;
  int64_t sorted_outlier_count = 0;
  // Of int8 panels for weights with minimums, [rows][groups of the weights]:
  // scale * (sum of the values). Kernels leave the minimums out: minimums.h.
  const float* group_sums = nullptr;
};

// One product: panel * weights^T.
struct Product {
  const PackedLayout* layout;
  const std::byte* weights;  // [records], tensor/packed_layout.h
  Panel panel;
};

// Where a kernel leaves its sums: output i of record first + j, for row r, at
// data[r * stride + j * record_outputs + i], padding outputs included.
struct Totals {
  float* data;
  int64_t stride;
};

// Computes the sums of records [first, end) for all rows. `scratch` is working
// memory of the calling thread, aligned to 64 bytes: the kernel's
// scratch_bytes().
using MultiplyFunction = void (*)(const Product& product, int64_t first,
                                  int64_t end, Totals totals,
                                  std::byte* scratch);

// One row of the table of variants.
struct MatMulKernel {
  const char* name;
  WeightFormat weights;
  // What they are multiplied as: themselves, or for integers decoded to it,
  // kF32 or kBF16.
  WeightFormat multiplied_as;
  // How it wants activations: kF32, kBF16 with bf16 weights, kI8 with integers.
  DType panel;
  Isa isa;
  int64_t highway_target;    // 0 for what is not compiled by Highway
  int64_t max_rows;          // per group of rows
  int64_t records_per_call;  // of many rows, whose totals shall stay in L2
  MultiplyFunction multiply;
  // Null if no scratch is needed.
  int64_t (*scratch_bytes)(const PackedLayout& layout, int64_t rows) = nullptr;
  // Fewer rows are left to the variants before it in the table. Only for
  // variants that give the same bits as those.
  int64_t min_rows = 1;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_KERNEL_H_
