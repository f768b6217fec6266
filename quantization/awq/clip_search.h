// How far the range of each group may be drawn in: AWQ's clip search.
//
//   Array<float> clip = SearchClip({weights, gram, spec}, scales, 0, pool);
//   RoundOptions options{spec};
//   options.clip = clip.span();
//
// For each row and group, the ratio of FitClippedGroup whose rounded weights
// change the group's share of the output least: e G_gg e^T, e the errors of the
// group's weights and G_gg the block of G that belongs to its inputs. Ratios
// are 1, 0.95, ... 0.55.
#ifndef NIBBLE_QUANTIZATION_AWQ_CLIP_SEARCH_H_
#define NIBBLE_QUANTIZATION_AWQ_CLIP_SEARCH_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/awq/scale_loss.h"
#include "tensor/buffer.h"

namespace nibble {

// linear.weights are those after folding, linear.gram that of the inputs
// before; scales: [inputs], by which columns were multiplied. Rows below
// `first_row` keep 1: clipping query and key rows is known to harm. Returns
// [outputs, groups]. The same on any number of threads.
Array<float> SearchClip(const RoundedLinear& linear,
                        absl::Span<const float> scales, int64_t first_row,
                        ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_AWQ_CLIP_SEARCH_H_
