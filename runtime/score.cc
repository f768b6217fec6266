#include "runtime/score.h"

#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/elementwise/topk.h"
#include "runtime/sequence.h"

namespace nibble {
namespace {

absl::Status CheckRequest(absl::Span<const int32_t> tokens, int64_t first) {
  if (tokens.empty()) {
    return absl::InvalidArgumentError("there are no tokens to score");
  }
  if (first < 1 || first > static_cast<int64_t>(tokens.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "scores are wanted from token ", first, " of ", tokens.size(),
        "; the first token that can be scored is 1"));
  }
  return absl::OkStatus();
}

// Scores `token` by the logits [vocabulary] of the token before it.
absl::Status AddScore(absl::Span<const float> logits, int32_t token,
                      TokenScores& scores) {
  const double log_sum = LogSumExp(logits);
  if (!std::isfinite(log_sum)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the model's logits are not numbers (their log-sum-exp is ", log_sum,
        "): its weights are damaged or out of range"));
  }
  const double logprob = static_cast<double>(logits[token]) - log_sum;
  const bool greedy = ArgMax(logits) == token;
  scores.logprobs.push_back(static_cast<float>(logprob));
  scores.greedy.push_back(greedy);
  scores.sum_logprob += logprob;
  scores.is_greedy = scores.is_greedy && greedy;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenScores> ScoreTokens(Engine& engine,
                                        absl::Span<const int32_t> tokens,
                                        const ScoreOptions& options) {
  absl::Status status = CheckRequest(tokens, options.first);
  if (!status.ok()) return status;
  const int64_t total = static_cast<int64_t>(tokens.size());
  TokenScores scores;
  scores.logprobs.reserve(total - options.first);
  scores.greedy.reserve(total - options.first);
  absl::StatusOr<std::unique_ptr<Sequence>> sequence = engine.NewSequence();
  if (!sequence.ok()) return sequence.status();

  const auto take = [&](int64_t first_position,
                        MatrixView<const float> logits) -> absl::Status {
    for (int64_t row = 0; row < logits.rows; ++row) {
      const int64_t next = first_position + row + 1;
      if (next < options.first || next >= total) continue;
      absl::Status added = AddScore(logits.row_span(row), tokens[next], scores);
      if (!added.ok()) return added;
    }
    return options.logits ? options.logits(first_position, logits)
                          : absl::OkStatus();
  };
  const int64_t first_row = options.logits ? 0 : options.first - 1;
  status = engine.PrefillWithLogits(**sequence, tokens, first_row, take,
                                    options.prefill);
  if (!status.ok()) return status;
  return scores;
}

}  // namespace nibble
