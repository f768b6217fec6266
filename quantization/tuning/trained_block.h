// What block-wise training is given.
#ifndef NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_
#define NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/rounding/grid.h"

namespace nibble {

// In the order of LinearId; not set: the matrix stays as it is.
using TrainedGrids = std::array<std::optional<GridSpec>, kLinearCount>;

// All pointers are borrowed.
struct TrainedBlock {
  const DecoderConfig* config = nullptr;
  int64_t layer = 0;
  const BlockWeights<float>* weights = nullptr;
  // What the quantized model gives the block, and what the float block makes of
  // what the float model gives it. [windows, length, hidden]
  const HiddenStates* inputs = nullptr;
  const HiddenStates* targets = nullptr;
  TrainedGrids grids;
};

// InvalidArgument, saying what is wrong, unless inputs and targets have one
// shape, a window at least, and the hidden size of the block; grids are allowed
// (grid.h); and weights that get one can be rounded (round_matrix.h).
absl::Status CheckTrainedBlock(const TrainedBlock& trained, ThreadPool& pool);

// Of the products that a block with such grids is trained and judged by: kBF16,
// or kF32 where any has 8 bits, whose steps bf16 does not resolve.
GemmPrecision TrainingPrecision(const TrainedGrids& grids);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_TRAINED_BLOCK_H_
