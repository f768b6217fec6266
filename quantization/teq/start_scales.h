// Where the training of channel scales starts.
//
//   SearchStart(trained, {}, objective, scales, pool);   // sets `scales`
//
// Pair by pair, the scales with the least loss of the block's output among
// ones, 1 / sqrt(max |W_:j|), and x_j^p / w_j^(1-p), x_j and w_j the mean
// magnitudes of the input and its weights, for some p from 0 to 1. A block
// whose channels were scaled by some s gets scales that take s back, exactly,
// for every p. Or among ones and what another search found.
#ifndef NIBBLE_QUANTIZATION_TEQ_START_SCALES_H_
#define NIBBLE_QUANTIZATION_TEQ_START_SCALES_H_

#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/teq/channel_scales.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {

// found: for each pair its scales, or none; or empty.
void SearchStart(const TrainedBlock& trained,
                 absl::Span<const std::vector<float>> found,
                 BlockObjective& objective, ChannelScales& scales,
                 ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TEQ_START_SCALES_H_
