#include "quantization/teq/channel_scales.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {

ChannelScales::ChannelScales(const TrainedBlock& trained,
                             const LinearResiduals& residuals,
                             BlockObjective& objective, ThreadPool& pool)
    : objective_(objective), pairs_(FoldablePairs(*trained.config)) {
  for (const LinearId id : kAllLinears) {
    const size_t i = static_cast<size_t>(id);
    if (!trained.grids[i].has_value()) continue;
    const BlockLinear<float>& linear = (*trained.weights)[id];
    ScaledMatrix& matrix =
        matrices_[i].emplace(linear.view(), *trained.grids[i], residuals[i]);
    const std::vector<float> ones(static_cast<size_t>(linear.inputs), 1.0f);
    matrix.Round(ones, pool);
    objective_.block().SetLinear(id, matrix.values(), pool);
  }
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const FoldablePair& pair = pairs_[i];
    scales_.emplace_back(static_cast<size_t>(pair.free_scales), 1.0f);
    if (std::all_of(pair.consumers.begin(), pair.consumers.end(),
                    [&](LinearId id) { return matrix(id).has_value(); })) {
      free_pairs_.push_back(i);
    }
  }
}

void ChannelScales::Set(size_t pair, std::vector<float> scales,
                        ThreadPool& pool) {
  scales_[pair] = std::move(scales);
  std::vector<float> of_inputs;
  for (const int32_t free : pairs_[pair].scale_of_input) {
    of_inputs.push_back(scales_[pair][static_cast<size_t>(free)]);
  }
  for (const LinearId id : pairs_[pair].consumers) {
    matrix(id)->Round(of_inputs, pool);
    objective_.block().SetLinear(id, matrix(id)->values(), pool);
  }
}

std::vector<double> ChannelScales::Slopes(size_t pair, ThreadPool& pool) {
  const FoldablePair& p = pairs_[pair];
  std::vector<double> by_input(static_cast<size_t>(p.inputs));
  for (const LinearId id : p.consumers) {
    matrix(id)->AddSlopes(objective_.gradient(id), absl::MakeSpan(by_input),
                          pool);
  }
  std::vector<double> slopes(static_cast<size_t>(p.free_scales));
  for (size_t j = 0; j < by_input.size(); ++j) {
    slopes[static_cast<size_t>(p.scale_of_input[j])] += by_input[j];
  }
  return slopes;
}

}  // namespace nibble
