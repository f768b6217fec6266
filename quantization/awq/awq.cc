#include "quantization/awq/awq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/awq/balanced_scales.h"
#include "quantization/awq/clip_search.h"
#include "quantization/awq/scale_loss.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Rows that candidates are compared on, spread over a matrix. The choice is
// confirmed on all rows.
constexpr int64_t kComparedRows = 1024;
// The smallest scale of a pair, relative to the largest.
constexpr double kLeastScale = 1e-4;

size_t Index(LinearId id) { return static_cast<size_t>(id); }

// Divided by the geometric mean of the extremes, so that neither side of the
// pair leaves the range of f16.
std::vector<float> Normalized(const std::vector<double>& scales) {
  double largest = 0;
  for (const double s : scales) largest = std::max(largest, s);
  double smallest = largest;
  for (const double s : scales) smallest = std::min(smallest, s);
  smallest = std::max(smallest, kLeastScale * largest);
  const double middle = std::sqrt(smallest * largest);
  std::vector<float> normalized;
  normalized.reserve(scales.size());
  for (const double s : scales) {
    normalized.push_back(static_cast<float>(std::max(s, smallest) / middle));
  }
  return normalized;
}

class PairSearch {
 public:
  PairSearch(const FoldablePair& pair, const BlockStatistics& statistics,
             const AwqOptions& options, const BlockWeights<float>& weights,
             ThreadPool& pool)
      : options_(options), pool_(pool) {
    chosen_.pair = pair;
    for (const LinearId id : pair.consumers) {
      const std::optional<GridSpec>& grid = options.grids[Index(id)];
      if (!grid.has_value()) continue;
      linears_.push_back({weights[id].view(), statistics[Index(id)].gram, *grid,
                          statistics[Index(id)].variances});
      losses_.emplace_back(linears_.back(), kComparedRows);
    }
    if (linears_.empty()) return;
    MeanInputs(statistics[Index(pair.consumers[0])].mean_absolute);
    MeanWeights();
  }

  // No value: nothing to round.
  std::optional<ChosenScales> Search() {
    if (linears_.empty()) return std::nullopt;
    const std::vector<float> identity(Count(), 1.0f);
    chosen_.scales = identity;
    chosen_.loss = Loss(identity, losses_);
    if (std::isfinite(chosen_.loss)) TryFamilies();
    Confirm(identity);
    return std::move(chosen_);
  }

 private:
  size_t Count() const { return static_cast<size_t>(chosen_.pair.free_scales); }
  size_t ScaleOf(size_t input) const {
    return static_cast<size_t>(chosen_.pair.scale_of_input[input]);
  }

  // Means over the inputs that share a scale. Inputs that were never active
  // count as the least active of the others, so that they do not stretch s.
  void MeanInputs(absl::Span<const double> mean_absolute) {
    inputs_.resize(Count());
    for (size_t j = 0; j < mean_absolute.size(); ++j) {
      inputs_[ScaleOf(j)] += mean_absolute[j];
    }
    double least = std::numeric_limits<double>::infinity();
    for (const double x : inputs_) {
      if (x > 0) least = std::min(least, x);
    }
    if (std::isinf(least)) least = 1;
    for (double& x : inputs_) x = std::max(x, least);
  }

  // Means over all rows of |w| relative to the largest of its group.
  void MeanWeights() {
    weights_.resize(Count());
    for (const RoundedLinear& linear : linears_) {
      const int64_t inputs = linear.weights.cols;
      const int64_t size = linear.spec.group_inputs(inputs);
      const int64_t rows = std::min(linear.weights.rows, kComparedRows);
      const double weight =
          static_cast<double>(linear.weights.rows) / static_cast<double>(rows);
      for (int64_t i = 0; i < rows; ++i) {
        const float* row = linear.weights.row(i * linear.weights.rows / rows);
        for (int64_t first = 0; first < inputs; first += size) {
          const int64_t end = std::min(first + size, inputs);
          float largest = 0;
          for (int64_t j = first; j < end; ++j) {
            largest = std::max(largest, std::abs(row[j]));
          }
          if (largest == 0) continue;
          for (int64_t j = first; j < end; ++j) {
            weights_[ScaleOf(static_cast<size_t>(j))] +=
                weight * double{std::abs(row[j])} / largest;
          }
        }
      }
    }
    double largest = 0;
    for (const double w : weights_) largest = std::max(largest, w);
    if (largest == 0) largest = 1;  // nothing to weigh by
    for (double& w : weights_) w = std::max(w, kLeastScale * largest);
  }

  double Loss(const std::vector<float>& scales,
              std::vector<ScaleLoss>& losses) {
    std::vector<float> by_input(static_cast<size_t>(chosen_.pair.inputs));
    for (size_t j = 0; j < by_input.size(); ++j) {
      by_input[j] = scales[ScaleOf(j)];
    }
    double sum = 0;
    for (ScaleLoss& loss : losses) sum += loss.Of(by_input, pool_);
    return sum;
  }

  void Try(std::vector<float> scales, ScaleFamily family, double alpha) {
    const double loss = Loss(scales, losses_);
    if (!(loss < chosen_.loss)) return;
    chosen_.scales = std::move(scales);
    chosen_.family = family;
    chosen_.alpha = alpha;
    chosen_.loss = loss;
  }

  std::vector<float> PowerScales(double alpha, double beta) const {
    std::vector<double> scales(Count());
    for (size_t k = 0; k < scales.size(); ++k) {
      scales[k] = std::pow(inputs_[k], alpha) / std::pow(weights_[k], beta);
    }
    return Normalized(scales);
  }

  void TryFamilies() {
    for (int k = 0; k < options_.scale_steps; ++k) {
      const double alpha = static_cast<double>(k) / options_.scale_steps;
      // At 0 it is the identity.
      if (k > 0) Try(PowerScales(alpha, 0), ScaleFamily::kActivation, alpha);
      if (options_.both) {
        Try(PowerScales(alpha, 1 - alpha), ScaleFamily::kBoth, alpha);
      }
    }
    if (!options_.balanced) return;
    const std::vector<float> balanced =
        BalanceScales(chosen_.pair, linears_, chosen_.scales, pool_);
    Try(Normalized({balanced.begin(), balanced.end()}), ScaleFamily::kBalanced,
        0);
  }

  // The losses of all rows; the identity where that is not worse.
  void Confirm(const std::vector<float>& identity) {
    losses_.clear();
    for (const RoundedLinear& linear : linears_) {
      losses_.emplace_back(linear, linear.weights.rows);
    }
    chosen_.identity_loss = Loss(identity, losses_);
    chosen_.loss = chosen_.family == ScaleFamily::kIdentity
                       ? chosen_.identity_loss
                       : Loss(chosen_.scales, losses_);
    if (chosen_.loss < chosen_.identity_loss) return;
    chosen_.scales = identity;
    chosen_.family = ScaleFamily::kIdentity;
    chosen_.alpha = 0;
    chosen_.loss = chosen_.identity_loss;
  }

  const AwqOptions& options_;
  ThreadPool& pool_;
  ChosenScales chosen_;
  std::vector<RoundedLinear> linears_;
  std::vector<ScaleLoss> losses_;
  std::vector<double> inputs_;   // [free_scales], x of awq.h
  std::vector<double> weights_;  // [free_scales], w of awq.h
};

// What each linear's columns were multiplied by. [inputs]
using ColumnScales = std::array<std::vector<float>, kLinearCount>;

void SearchClips(const DecoderConfig& config, const BlockStatistics& statistics,
                 const AwqOptions& options, const ColumnScales& scales,
                 const BlockWeights<float>& weights, AwqResult& result,
                 ThreadPool& pool) {
  for (const LinearId id : kAllLinears) {
    const std::optional<GridSpec>& grid = options.grids[Index(id)];
    if (!grid.has_value()) continue;
    const int64_t first_row =
        id == LinearId::kQkv ? config.q_dim() + config.kv_dim() : 0;
    result.clip[Index(id)] =
        SearchClip({weights[id].view(), statistics[Index(id)].gram, *grid},
                   scales[Index(id)], first_row, pool);
  }
}

}  // namespace

std::vector<ChosenScales> SearchAwqScales(const DecoderConfig& config,
                                          const BlockStatistics& statistics,
                                          const AwqOptions& options,
                                          const BlockWeights<float>& weights,
                                          ThreadPool& pool) {
  // No matrix is a consumer of two pairs, nor of one behind a pair that it is
  // the producer of: what is folded for one changes nothing for the others.
  std::vector<ChosenScales> pairs;
  for (const FoldablePair& pair : FoldablePairs(config)) {
    std::optional<ChosenScales> chosen =
        PairSearch(pair, statistics, options, weights, pool).Search();
    if (chosen.has_value()) pairs.push_back(*std::move(chosen));
  }
  return pairs;
}

AwqResult TransformAwq(const DecoderConfig& config,
                       const BlockStatistics& statistics,
                       const AwqOptions& options, BlockWeights<float>& weights,
                       ThreadPool& pool) {
  AwqResult result;
  result.pairs = SearchAwqScales(config, statistics, options, weights, pool);
  ColumnScales columns;
  for (const LinearId id : kAllLinears) {
    columns[Index(id)].assign(static_cast<size_t>(weights[id].inputs), 1.0f);
  }
  for (const ChosenScales& chosen : result.pairs) {
    const FoldablePair& pair = chosen.pair;
    if (chosen.family != ScaleFamily::kIdentity) {
      Fold(pair, chosen.scales, config, weights);
    }
    for (const LinearId id : pair.consumers) {
      for (size_t j = 0; j < columns[Index(id)].size(); ++j) {
        columns[Index(id)][j] =
            chosen.scales[static_cast<size_t>(pair.scale_of_input[j])];
      }
    }
  }
  if (options.clip) {
    SearchClips(config, statistics, options, columns, weights, result, pool);
  }
  return result;
}

}  // namespace nibble
