// What block-wise training is given.
#ifndef NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_
#define NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/rounding/grid.h"

namespace nibble {

// All pointers are borrowed.
struct TrainedBlock {
  const DecoderConfig* config = nullptr;
  int64_t layer = 0;
  const BlockWeights<float>* weights = nullptr;
  // What the quantized model gives the block, and what the float block makes of
  // what the float model gives it. [windows, length, hidden]
  const HiddenStates* inputs = nullptr;
  const HiddenStates* targets = nullptr;
  // In the order of LinearId; not set: the matrix stays as it is.
  std::array<std::optional<GridSpec>, kLinearCount> grids;
};

// InvalidArgument, saying what is wrong, unless inputs and targets have one
// shape, a window at least, and the hidden size of the block; grids are allowed
// (grid.h); and weights that get one can be rounded (round_matrix.h).
absl::Status CheckTrainedBlock(const TrainedBlock& trained, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_
