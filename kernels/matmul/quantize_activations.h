// Rounds activations to int8, a scale for each row and group of K, and packs
// them as panel_layout.h draws int8 panels.
//
// For each group: amax = max |x|, scale = amax / 127, and each value is
// x * (127 / amax) rounded to nearest, ties to even. Below amax = 2^-100 the
// group is all zero with scale 0; a group with a NaN or an infinity has scale
// NaN and values 0, so that its products are NaN. The same bits on every ISA.
//
// A single value that stands out would cost all others their precision. So
// where the largest magnitude exceeds kOutlierRatio times the second largest,
// amax is the second largest, the value is cut to 127 steps, and what was cut
// off is listed as an Outlier.
#ifndef NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_
#define NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matmul/kernel.h"
#include "kernels/matmul/ordered_rows.h"
#include "kernels/thread_pool.h"

namespace nibble {

// Trained models have such values: a few channels of the normed residual stream
// are many times larger than the rest, in most tokens. docs/quantization.md has
// what this and other ratios do to perplexity.
inline constexpr float kOutlierRatio = 1.5f;

// Bytes of the panel of `rows` rows: values, scales, minus sums, outliers and
// their counts, each padded to whole cache lines.
int64_t QuantizedPanelBytes(int64_t rows, int64_t inputs, int64_t group_size);
// What more is needed if the rows have an order: a row for each thread.
int64_t OrderedRowBytes(int64_t inputs, int threads);

// Quantizes `input`, in `groups` of rows, into `memory`, which the panel points
// to. `group_size` is that of the weights. REQUIRES: input.x.rows ==
// groups.rows; `memory` has QuantizedPanelBytes(), and with an order
// OrderedRowBytes(), and is aligned to 64 bytes; group_size is a multiple of 32
// or at least input.x.cols.
Panel QuantizeActivations(const OrderedRows& input, const RowGroups& groups,
                          int64_t group_size, std::byte* memory,
                          ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_QUANTIZE_ACTIVATIONS_H_
