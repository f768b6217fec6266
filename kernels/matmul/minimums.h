// The part of a product that comes from the minimums of weights, where the
// activations are int8. With w = scale * code + minimum in each group, a
// product is that of the codes, zero point 0, plus
//
//   sum over groups of minimum * (sum of the group's activations)
//
// which is a product of depth K / group_size in f32.
#ifndef NIBBLE_KERNELS_MATMUL_MINIMUMS_H_
#define NIBBLE_KERNELS_MATMUL_MINIMUMS_H_

#include <cstdint>

#include "kernels/matmul/kernel.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Bytes of `rows` rows of group sums, whole cache lines.
int64_t GroupSumBytes(const PackedLayout& layout, int64_t rows);

// group_sums[row][g] = scale * (sum of the values) of an int8 panel.
// `group_sums` has GroupSumBytes().
void SumGroups(const Panel& panel, const PackedLayout& layout,
               float* group_sums, ThreadPool& pool);

// Adds to the sums of records [first, end), for each row, groups ascending:
// sum = fma(group sum, minimum, sum). The same bits on every ISA.
// REQUIRES: a layout with minimums; the panel has group_sums.
void AddMinimums(const Product& product, int64_t first, int64_t end,
                 Totals totals);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_MINIMUMS_H_
