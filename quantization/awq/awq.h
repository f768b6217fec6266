// AWQ (Lin et al., arXiv 2306.00978): before rounding to nearest, inputs that
// matter are scaled up, so that they lose less, and what produces them is
// scaled down; then ranges of groups are clipped where that helps.
//
//   AwqOptions options;
//   options.grids.fill(GridSpec{4, 128, CodeOffset::kZeros});
//   AwqResult result = TransformAwq(config, statistics, options, weights,
//   pool); for (LinearId id : kAllLinears) {
//     RoundOptions rounding{*options.grids[int(id)]};
//     rounding.clip = result.clip_of(id);
//     RoundMatrix(weights[id].view(), rounding, pool);
//   }
//
// For each foldable pair (folding.h), in the order in which the block computes
// them, candidates are
//
//   identity   s = 1
//   activation s_j = x_j^alpha                          (llm-awq)
//   both       s_j = x_j^alpha / w_j^(1 - alpha)        (AutoAWQ)
//   balanced   balanced_scales.h, from the best of those
//
// with x_j = mean |input j|, w_j = mean over rows of |w| / its group's largest,
// alpha = k / scale_steps, k < scale_steps. The one with the least loss
// (scale_loss.h, summed over the pair's linears) is folded into the weights,
// and never one that is worse than the identity. The statistics are those of
// the float block's inputs on float inputs.
#ifndef NIBBLE_QUANTIZATION_AWQ_AWQ_H_
#define NIBBLE_QUANTIZATION_AWQ_AWQ_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// Of the inputs of one linear; quantization/gptq/gram.h has both.
struct InputStatistics {
  MatrixView<const float> gram;            // [inputs, inputs], mean of x x^T
  absl::Span<const double> mean_absolute;  // [inputs], mean of |x_j|
  // Empty unless GPTQ will round: ConditionalVariances of gptq/damped_factor.h.
  absl::Span<const double> variances = {};
};

// In the order of LinearId. Linears that read the same input may share views.
using BlockStatistics = std::array<InputStatistics, kLinearCount>;

struct AwqOptions {
  // In the order of LinearId; no value: the linear stays float.
  std::array<std::optional<GridSpec>, kLinearCount> grids;
  int scale_steps = 20;  // 1 and up; 1: alpha is 0 alone
  bool both = true;      // the candidates beside identity and activation ...
  bool balanced = true;
  bool clip = true;
};

enum class ScaleFamily { kIdentity, kActivation, kBoth, kBalanced };

struct ChosenScales {
  FoldablePair pair;
  std::vector<float> scales;  // [free_scales]
  ScaleFamily family = ScaleFamily::kIdentity;
  double alpha = 0;
  double identity_loss = 0;  // summed over the pair's linears
  double loss = 0;           // of `scales`, at most the above
};

struct AwqResult {
  std::vector<ChosenScales> pairs;
  // Ratios of FitClippedGroup, [outputs, groups] each. Empty for float linears
  // and without options.clip.
  std::array<Array<float>, kLinearCount> clip;

  absl::Span<const float> clip_of(LinearId id) const {
    return clip[static_cast<size_t>(id)].span();
  }
};

// The best scales of each pair, in the order of FoldablePairs; not of pairs
// none of whose linears is rounded. REQUIRES: as TransformAwq.
std::vector<ChosenScales> SearchAwqScales(const DecoderConfig& config,
                                          const BlockStatistics& statistics,
                                          const AwqOptions& options,
                                          const BlockWeights<float>& weights,
                                          ThreadPool& pool);

// Folds the scales into `weights`, of a block of `config`'s model. Pairs none
// of whose linears is rounded are left alone. Does not depend on the number of
// threads. REQUIRES: CheckWeights (rounding/round_matrix.h) passed for each
// matrix, CheckGridSpec for each grid; statistics are finite.
AwqResult TransformAwq(const DecoderConfig& config,
                       const BlockStatistics& statistics,
                       const AwqOptions& options, BlockWeights<float>& weights,
                       ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_AWQ_AWQ_H_
