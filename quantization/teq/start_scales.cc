#include "quantization/teq/start_scales.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/teq/channel_scales.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Windows that a candidate is judged by: a quarter of the fixed ones, so that
// the search costs about as much as 20 iterations of 8 windows.
constexpr size_t kJudges = 8;
constexpr int kPowerSteps = 10;

// Per free scale of a pair; 0 where all is 0.
struct Magnitudes {
  std::vector<double> inputs;           // mean |x|
  std::vector<double> mean_weights;     // mean |W_:j|
  std::vector<double> largest_weights;  // max |W_:j|
};

Magnitudes MagnitudesOf(
    const FoldablePair& pair, const BlockWeights<float>& weights,
    const std::array<std::vector<double>, kLinearCount>& inputs) {
  const size_t count = static_cast<size_t>(pair.free_scales);
  Magnitudes m = {std::vector<double>(count), std::vector<double>(count),
                  std::vector<double>(count)};
  const std::vector<double>& x = inputs[static_cast<size_t>(pair.consumers[0])];
  for (size_t j = 0; j < x.size(); ++j) {
    m.inputs[static_cast<size_t>(pair.scale_of_input[j])] += x[j];
  }
  for (const LinearId id : pair.consumers) {
    const MatrixView<const float> w = weights[id].view();
    for (int64_t row = 0; row < w.rows; ++row) {
      for (int64_t j = 0; j < w.cols; ++j) {
        const size_t free = static_cast<size_t>(pair.scale_of_input[j]);
        const double magnitude = std::abs(w.row(row)[j]);
        m.mean_weights[free] += magnitude;
        m.largest_weights[free] = std::max(m.largest_weights[free], magnitude);
      }
    }
  }
  return m;
}

// Scales in the middle of the floats, 1 in their geometric mean; 1 where a
// magnitude was 0.
std::vector<float> Normalised(const std::vector<double>& logs) {
  double sum = 0;
  int64_t count = 0;
  for (const double value : logs) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  const double mean = count == 0 ? 0.0 : sum / static_cast<double>(count);
  std::vector<float> scales;
  for (const double value : logs) {
    scales.push_back(
        std::isfinite(value)
            ? static_cast<float>(std::exp(std::clamp(value - mean, -10., 10.)))
            : 1.0f);
  }
  return scales;
}

std::vector<std::vector<float>> Candidates(const Magnitudes& m) {
  std::vector<std::vector<float>> candidates;
  const size_t count = m.inputs.size();
  std::vector<double> logs(count);
  for (size_t j = 0; j < count; ++j) {
    logs[j] = -0.5 * std::log(m.largest_weights[j]);
  }
  candidates.push_back(Normalised(logs));
  for (int step = 0; step <= kPowerSteps; ++step) {
    const double power = static_cast<double>(step) / kPowerSteps;
    for (size_t j = 0; j < count; ++j) {
      // A channel without inputs or weights has no say, and gets 1.
      logs[j] = power * std::log(m.inputs[j]) -
                (1.0 - power) * std::log(m.mean_weights[j]);
    }
    candidates.push_back(Normalised(logs));
  }
  return candidates;
}

}  // namespace

void SearchStart(const TrainedBlock& trained,
                 absl::Span<const std::vector<float>> found,
                 BlockObjective& objective, ChannelScales& scales,
                 ThreadPool& pool) {
  std::vector<int64_t> judges;
  const auto fixed = objective.fixed_windows();
  const size_t count = std::min(kJudges, fixed.size());
  for (size_t i = 0; i < count; ++i) {
    judges.push_back(fixed[i * fixed.size() / count]);
  }
  const auto loss = [&] { return MeanOf(objective.Losses(judges, pool)); };
  // Of the rounded block: near enough, and the inputs that it will get.
  const auto inputs = objective.MeanInputs(judges, pool);
  double best_loss = loss();
  for (const size_t pair : scales.free_pairs()) {
    std::vector<float> best = scales.scales(pair);
    std::vector<std::vector<float>> candidates =
        found.empty() || found[pair].empty()
            ? Candidates(
                  MagnitudesOf(scales.pairs()[pair], *trained.weights, inputs))
            : std::vector<std::vector<float>>{found[pair]};
    for (std::vector<float>& candidate : candidates) {
      scales.Set(pair, candidate, pool);
      const double candidate_loss = loss();
      // False for NaN.
      if (candidate_loss < best_loss) {
        best_loss = candidate_loss;
        best = std::move(candidate);
      }
    }
    scales.Set(pair, std::move(best), pool);
  }
}

}  // namespace nibble
