#ifndef NIBBLE_RUNTIME_SAMPLER_TESTING_H_
#define NIBBLE_RUNTIME_SAMPLER_TESTING_H_

// What tests of the sampler share: a slow and obvious reference, which computes
// the distribution that the steps in sampler.h describe by sorting everything,
// and short ways to draw.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/sampler.h"

namespace nibble::testing {

struct SamplingHistory {
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
};

// Steps 1 to 3.
inline std::vector<double> AdjustedLogits(const SamplingOptions& options,
                                          const std::vector<float>& logits,
                                          const SamplingHistory& history) {
  std::vector<double> adjusted(logits.begin(), logits.end());
  for (size_t token = 0; token < adjusted.size(); ++token) {
    const int32_t id = static_cast<int32_t>(token);
    double& logit = adjusted[token];
    const auto bias = options.logit_bias.find(id);
    if (bias != options.logit_bias.end()) logit += bias->second;
    const auto count = [&](const std::vector<int32_t>& tokens) {
      return std::count(tokens.begin(), tokens.end(), id);
    };
    const int64_t in_output = count(history.output);
    if (in_output + count(history.prompt) > 0) {
      logit = logit > 0 ? logit / options.repetition_penalty
                        : logit * options.repetition_penalty;
    }
    logit -= options.frequency_penalty * in_output;
    if (in_output > 0) logit -= options.presence_penalty;
  }
  return adjusted;
}

// The probability of each token. REQUIRES: temperature above 0, some finite
// logit, no NaN and no +infinity.
inline std::vector<double> SamplingDistribution(
    const SamplingOptions& options, const std::vector<float>& logits,
    const SamplingHistory& history = {}) {
  const std::vector<double> adjusted = AdjustedLogits(options, logits, history);
  std::vector<size_t> order(adjusted.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return adjusted[a] > adjusted[b];
  });
  const double largest = adjusted[order[0]];
  std::vector<double> p(adjusted.size(), 0.0);
  double total = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const int64_t k = static_cast<int64_t>(rank);
    if (options.top_k > 0 && k >= options.top_k) break;
    p[order[rank]] =
        std::exp((adjusted[order[rank]] - largest) / options.temperature);
    total += p[order[rank]];
  }
  double mass = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const double own = p[order[rank]] / total;
    if (rank > 0 && mass >= options.top_p) p[order[rank]] = 0;
    mass += own;
  }
  for (double& x : p) {
    if (x < options.min_p * p[order[0]]) x = 0;
  }
  total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  return p;
}

inline Sampler MakeSampler(const SamplingOptions& options, int64_t vocabulary) {
  absl::StatusOr<Sampler> sampler = Sampler::Create(options, vocabulary);
  EXPECT_TRUE(sampler.ok()) << sampler.status();
  return *std::move(sampler);
}

inline int32_t SampleFrom(Sampler& sampler, std::vector<float> logits) {
  absl::StatusOr<int32_t> token = sampler.Sample(absl::MakeSpan(logits));
  EXPECT_TRUE(token.ok()) << token.status();
  return token.value_or(-1);
}

// Normally distributed.
inline std::vector<float> RandomLogits(int64_t vocabulary, uint32_t seed,
                                       float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Draws `draws` tokens from the same logits, with no history between them.
inline std::vector<int> Counts(const SamplingOptions& options,
                               const std::vector<float>& logits, int draws) {
  Sampler sampler = MakeSampler(options, logits.size());
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[SampleFrom(sampler, logits)];
  return counts;
}

}  // namespace nibble::testing

#endif  // NIBBLE_RUNTIME_SAMPLER_TESTING_H_
