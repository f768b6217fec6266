#ifndef NIBBLE_RUNTIME_BEAM_SEARCH_H_
#define NIBBLE_RUNTIME_BEAM_SEARCH_H_

// Beam search: the most probable continuation that keeping `beams` of them in
// view can find.
//
//   BeamOptions options;
//   options.beams = 4;
//   absl::StatusOr<BeamHypothesis> best =
//       BeamSearch(options, first_logits, step);
//
// As Hugging Face's generate(num_beams=...) with early_stopping=False: each
// step ranks every continuation of every beam by the sum of its
// log-probabilities; those that end are set aside with the score
//   sum / generated_tokens ^ length_penalty      (the ending token counted)
// if they are among the first `beams`; the best `beams` of the others go on.
// It ends when `beams` are set aside and the best going on, at its present
// length, could not beat the worst of them. Deterministic: of equals, the lower
// beam and then the lower token comes first.
//
// The search knows no model: `step` moves it on, so it can be tested alone.

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tensor/view.h"

namespace nibble {

// Each beam needs keys and values and a row of logits of its own; published
// work rarely goes beyond 50.
inline constexpr int64_t kMaxBeams = 128;

struct BeamOptions {
  int64_t beams = 1;  // 1 to kMaxBeams
  int64_t max_tokens = 1;
  double length_penalty = 1.0;
  std::vector<int32_t> end_ids;  // tokens that end a hypothesis
  // Asked before each step: true ends the search with what there is.
  std::function<bool()> cancelled;
};

struct BeamHypothesis {
  std::vector<int32_t> tokens;  // with the ending token, if it ended
  double sum_logprob = 0.0;
  double score = 0.0;  // sum_logprob / tokens ^ length_penalty
  bool ended = false;
  bool cancelled = false;
};

// Beam i becomes old beam parents[i] followed by tokens[i]; writes the logits
// of what comes next to row i: [beams, vocabulary]. The first call has as many
// old beams as one.
using BeamStep = absl::FunctionRef<absl::Status(
    absl::Span<const int32_t> parents, absl::Span<const int32_t> tokens,
    MatrixView<float> logits)>;

// `first_logits` [vocabulary] belong to the prompt. InvalidArgument: a logit is
// NaN or +infinity, or all of a beam are -infinity; options out of range.
absl::StatusOr<BeamHypothesis> BeamSearch(const BeamOptions& options,
                                          absl::Span<const float> first_logits,
                                          BeamStep step);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_BEAM_SEARCH_H_
