// What logits say about one token, and how two rows of logits differ.
//
//   std::vector<float> scratch(vocabulary);
//   TokenScore score = ScoreToken(logits, token);
//   double kl = KlDivergence(reference_logits, logits,
//   absl::MakeSpan(scratch));
#ifndef NIBBLE_RUNTIME_EVALUATION_TOKEN_SCORE_H_
#define NIBBLE_RUNTIME_EVALUATION_TOKEN_SCORE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace nibble {

struct TokenScore {
  double logprob = 0.0;      // ln softmax(logits)[token]; not finite where the
                             // logits are not numbers
  int64_t first_choice = 0;  // the largest logit's id, the lowest of equals
};

// REQUIRES: 0 <= token < logits.size().
TokenScore ScoreToken(absl::Span<const float> logits, int32_t token);

// KL(p || q) = sum_i p_i (ln p_i - ln q_i) in nats, p and q the softmax of two
// rows of logits; exactly 0 for equal rows, and never below it. Not finite
// where logits are not. `scratch` has the size of both, and is overwritten.
double KlDivergence(absl::Span<const float> p_logits,
                    absl::Span<const float> q_logits,
                    absl::Span<float> scratch);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_TOKEN_SCORE_H_
