#ifndef NIBBLE_RUNTIME_SCORE_H_
#define NIBBLE_RUNTIME_SCORE_H_

// Log-probabilities of given tokens.
//
//   absl::StatusOr<TokenScores> scores =
//       ScoreTokens(*engine, ids, {.first = context_tokens});
//   scores->sum_logprob;       // of ids[context_tokens..]
//   scores->is_greedy;         // each was the model's first choice

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/engine.h"
#include "tensor/view.h"

namespace nibble {

struct ScoreOptions {
  // The first token that is scored; at least 1, since nothing predicts token 0.
  int64_t first = 1;
  // Receives the logits of all tokens, [tokens, vocabulary] in pieces.
  std::function<absl::Status(int64_t first_position,
                             MatrixView<const float> logits)>
      logits;
  PrefillOptions prefill;
};

struct TokenScores {
  // ln p(token i | the tokens before it) for tokens first, first + 1, ...
  std::vector<float> logprobs;
  // 1 where the token has the largest logit (the lowest id of equals).
  std::vector<uint8_t> greedy;
  double sum_logprob = 0.0;
  bool is_greedy = true;  // all of `greedy`; true for no tokens
};

// InvalidArgument: no tokens, more than the context, ids outside the
// vocabulary, `first` below 1 or past the end, logits that are not numbers.
absl::StatusOr<TokenScores> ScoreTokens(Engine& engine,
                                        absl::Span<const int32_t> tokens,
                                        const ScoreOptions& options = {});

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_SCORE_H_
