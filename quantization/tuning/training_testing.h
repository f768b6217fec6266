// A small block with inputs and targets for tests of the training.
//
//   TinyTraining tiny(TinyDecoderConfig(), pool);
//   TuneSignRound(tiny.With(spec), options, pool);
#ifndef NIBBLE_QUANTIZATION_TUNING_TRAINING_TESTING_H_
#define NIBBLE_QUANTIZATION_TUNING_TRAINING_TESTING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/grow_matrix.h"
#include "quantization/block/hidden_states.h"
#include "quantization/rounding/grid.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble::testing {

// Every kind of grid.
inline constexpr GridSpec kTrainedGrids[] = {
    {4, 32, CodeOffset::kZeros},    {4, 32, CodeOffset::kSymmetric},
    {4, 32, CodeOffset::kMinimums}, {2, 32, CodeOffset::kZeros},
    {2, 32, CodeOffset::kMinimums}, {3, 32, CodeOffset::kSymmetric},
    {3, 32, CodeOffset::kMinimums}, {8, 32, CodeOffset::kSymmetric}};

inline std::string GridName(const GridSpec& spec) {
  constexpr const char* kOffsets[] = {" symmetric", " zeros", " minimums"};
  return std::to_string(spec.bits) + " bits" +
         kOffsets[static_cast<int>(spec.offset)];
}

class TinyTraining {
 public:
  static constexpr int64_t kLayer = 1;
  static constexpr int64_t kLength = 12;

  TinyTraining(const DecoderConfig& config, ThreadPool& pool,
               int64_t windows = 10)
      : config(config),
        weights(RandomBlock(config, kLayer, pool)),
        inputs(windows, kLength, config.hidden),
        targets(windows, kLength, config.hidden) {
    // Channels that hang together, as those of models do: sums of a few random
    // directions, and a little of their own.
    RandomValues random(17);
    const int64_t tokens = windows * kLength, hidden = config.hidden;
    constexpr int64_t kDirections = 6;
    const std::vector<float> parts = random.Normal(tokens * kDirections, 1.0f);
    const std::vector<float> directions =
        random.Normal(kDirections * hidden, 1.0f);
    std::vector<float> x = random.Normal(tokens * hidden, 0.2f);
    for (int64_t i = 0; i < tokens * hidden; ++i) {
      for (int64_t d = 0; d < kDirections; ++d) {
        x[static_cast<size_t>(i)] +=
            parts[static_cast<size_t>(i / hidden * kDirections + d)] *
            directions[static_cast<size_t>(d * hidden + i % hidden)];
      }
    }
    inputs.Store(0, MatrixView<const float>(x.data(), tokens, hidden), pool);
    StoreTargets(pool);
  }

  // Targets from what the weights are now.
  void StoreTargets(ThreadPool& pool) {
    targets.Store(0, Run(weights, pool).output(), pool);
  }

  // Forward through the block with other weights; valid until the next call.
  const BlockActivations<float>& Run(const BlockWeights<float>& other,
                                     ThreadPool& pool) {
    const int64_t tokens = inputs.windows() * inputs.length();
    const MatrixView<float> x = x_.Resize(tokens, inputs.hidden());
    inputs.Load(0, x, pool);
    Block<float> block(config, kLayer, inputs.length(), GemmPrecision::kF32);
    block.SetWeights(other, /*gradients=*/false, pool);
    block.Forward(x, acts_, pool);
    return acts_;
  }

  // The mean square distance of the block's outputs from the targets, over all
  // windows.
  double LossOf(const BlockWeights<float>& other, ThreadPool& pool) {
    const MatrixView<const float> y = Run(other, pool).output();
    const MatrixView<float> target = target_.Resize(y.rows, y.cols);
    targets.Load(0, target, pool);
    double sum = 0;
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) {
        const double off = static_cast<double>(y.row(i)[j]) - target.row(i)[j];
        sum += off * off;
      }
    }
    return sum / static_cast<double>(y.rows * y.cols);
  }

  TrainedBlock With(const std::optional<GridSpec>& spec) const {
    TrainedBlock trained;
    trained.config = &config;
    trained.layer = kLayer;
    trained.weights = &weights;
    trained.inputs = &inputs;
    trained.targets = &targets;
    trained.grids.fill(spec);
    return trained;
  }

  DecoderConfig config;
  BlockWeights<float> weights;
  HiddenStates inputs;
  HiddenStates targets;

 private:
  GrowMatrix<float> x_;
  GrowMatrix<float> target_;
  BlockActivations<float> acts_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_QUANTIZATION_TUNING_TRAINING_TESTING_H_
