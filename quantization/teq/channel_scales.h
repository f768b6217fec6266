// The scales of all pairs of a block, applied to the block of an objective.
//
//   ChannelScales scales(trained, objective, pool);    // ones
//   scales.Set(pair, values, pool);                    // [free_scales]
//   double loss = objective.FixedLoss(pool);
//   ... objective.LossesAndGradients(...) ...
//   std::vector<double> slopes = scales.Slopes(pair, pool);
#ifndef NIBBLE_QUANTIZATION_TEQ_CHANNEL_SCALES_H_
#define NIBBLE_QUANTIZATION_TEQ_CHANNEL_SCALES_H_

#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/teq/scaled_matrix.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {

// In the order of LinearId.
using LinearResiduals = std::array<absl::Span<const float>, kLinearCount>;

class ChannelScales {
 public:
  // Every matrix with a grid is rounded. Borrows the objective, the weights and
  // the residuals of scaled_matrix.h, which are empty or [inputs].
  ChannelScales(const TrainedBlock& trained, const LinearResiduals& residuals,
                BlockObjective& objective, ThreadPool& pool);

  // Pairs all of whose consumers have grids, by index into pairs().
  const std::vector<FoldablePair>& pairs() const { return pairs_; }
  const std::vector<size_t>& free_pairs() const { return free_pairs_; }

  const std::vector<float>& scales(size_t pair) const { return scales_[pair]; }
  const std::vector<std::vector<float>>& all() const { return scales_; }
  void Set(size_t pair, std::vector<float> scales, ThreadPool& pool);

  // dLoss/d(log scale), from the objective's gradients. [free_scales]
  std::vector<double> Slopes(size_t pair, ThreadPool& pool);

 private:
  std::optional<ScaledMatrix>& matrix(LinearId id) {
    return matrices_[static_cast<size_t>(id)];
  }

  BlockObjective& objective_;
  const std::vector<FoldablePair> pairs_;
  std::vector<size_t> free_pairs_;
  std::vector<std::vector<float>> scales_;
  std::array<std::optional<ScaledMatrix>, kLinearCount> matrices_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TEQ_CHANNEL_SCALES_H_
