// A context and its continuation as the tokens to score, by the rules of
// lm-evaluation-harness:
//
// - white space that ends the context goes to the continuation;
// - both are tokenized together, and the continuation is what stands after as
//   many tokens as the context has alone;
// - a BOS stands first where the tokenizer adds one; before an empty context
//   the BOS stands anyway, or for want of one the EOS;
// - of what does not fit into the model, the end is kept: context + 1 tokens,
//   the last of which is scored and not read.
//
//   absl::StatusOr<ScoredSequence> sequence = MakeSequence(
//       "Question: ...\nAnswer:", " Yes.", *engine->tokenizer(), 2048);
#ifndef NIBBLE_RUNTIME_EVALUATION_REQUEST_H_
#define NIBBLE_RUNTIME_EVALUATION_REQUEST_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/evaluation/scored_sequence.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// `characters` of the result stays 0. InvalidArgument: a continuation that adds
// no tokens, or more than `max_tokens`; an empty context where the tokenizer
// has neither BOS nor EOS.
absl::StatusOr<ScoredSequence> MakeSequence(absl::string_view context,
                                            absl::string_view continuation,
                                            const Tokenizer& tokenizer,
                                            int64_t max_tokens);

// Spelled-out special tokens stay plain text, and no BOS is added.
std::vector<int32_t> EncodePlain(absl::string_view text,
                                 const Tokenizer& tokenizer);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_REQUEST_H_
