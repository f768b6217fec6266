// Rounds activations to int8, a scale for each row and group of K, and packs
// them as panel_layout.h draws int8 panels.
//
// For each group: amax = max |x|, scale = amax / 127, and each value is
// x * (127 / amax) rounded to nearest, ties to even. Below amax = 2^-100 the
// group is all zero with scale 0; a group with a NaN or an infinity has scale
// NaN and values 0, so that its products are NaN. The same bits on every ISA.
#ifndef NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_
#define NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matmul/kernel.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// Bytes of the panel of `rows` rows: values, scales and minus sums, each padded
// to whole cache lines.
int64_t QuantizedPanelBytes(int64_t rows, int64_t inputs, int64_t group_size);

// Quantizes x, in `groups` of rows, into `memory`, which the panel points to.
// `group_size` is that of the weights. REQUIRES: x.rows == groups.rows;
// `memory` has QuantizedPanelBytes() and is aligned to 64 bytes; group_size is
// a multiple of 32 or at least x.cols.
Panel QuantizeActivations(const MatrixView<const float>& x,
                          const RowGroups& groups, int64_t group_size,
                          std::byte* memory, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_
