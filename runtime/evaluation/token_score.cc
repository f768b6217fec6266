#include "runtime/evaluation/token_score.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/elementwise/topk.h"

namespace nibble {
namespace {

// sum_i p_i (a_i - b_i - offset), in a fixed order that the compiler can
// vectorise.
double WeightedDifference(absl::Span<const float> p, absl::Span<const float> a,
                          absl::Span<const float> b, double offset) {
  constexpr size_t kLanes = 8;
  const auto term = [&](size_t i) {
    return static_cast<double>(p[i]) *
           (static_cast<double>(a[i]) - static_cast<double>(b[i]) - offset);
  };
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= p.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  }
  double sum = 0.0;
  for (const double lane : sums) sum += lane;
  for (; i < p.size(); ++i) sum += term(i);
  return sum;
}

}  // namespace

TokenScore ScoreToken(absl::Span<const float> logits, int32_t token) {
  TokenScore score;
  score.logprob = static_cast<double>(logits[static_cast<size_t>(token)]) -
                  LogSumExp(logits);
  score.first_choice = ArgMax(logits);
  return score;
}

double KlDivergence(absl::Span<const float> p_logits,
                    absl::Span<const float> q_logits,
                    absl::Span<float> scratch) {
  CHECK(p_logits.size() == q_logits.size() &&
        p_logits.size() == scratch.size());
  std::copy(p_logits.begin(), p_logits.end(), scratch.begin());
  Softmax(scratch);
  const double offset = LogSumExp(p_logits) - LogSumExp(q_logits);
  const double kl = WeightedDifference(scratch, p_logits, q_logits, offset);
  // Rounding may take a divergence near 0 below it; a NaN stays one.
  return kl < 0.0 ? 0.0 : kl;
}

}  // namespace nibble
