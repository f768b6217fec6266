#ifndef NIBBLE_RUNTIME_TEXT_GENERATOR_H_
#define NIBBLE_RUNTIME_TEXT_GENERATOR_H_

// From a prompt's ids to text, streamed as it is made.
//
//   GenerateOptions options;
//   options.max_tokens = 64;
//   options.stop = {"\n\n"};
//   options.sampling.temperature = 0.7;
//   absl::StatusOr<Generation> result = Generate(
//       *engine, prompt, options, [](absl::string_view text) {
//         std::cout << text << std::flush;
//         return true;                             // false: stop now
//       });
//
// The text ends at an end-of-text token, at a stop string, after max_tokens,
// or where the context is full. Text that may turn out to be the beginning of
// a stop string is held back until that is known, so nothing of a stop string
// is ever shown. Text is always whole UTF-8 characters.

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/engine.h"
#include "runtime/sampler.h"

namespace nibble {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 128;  // >= 1
  // Strings that end the text, none of them empty. They need a tokenizer.
  std::vector<std::string> stop;
  // Tokens that end the text besides the model's own, such as a chat
  // template's end of turn.
  std::vector<int32_t> stop_token_ids;
  // Goes on past the model's end-of-text tokens and stop_token_ids.
  bool ignore_eos = false;
  // More than 1: beam search (beam_search.h). Needs temperature 0 and no
  // penalties; the text arrives in one piece.
  int64_t num_beams = 1;
  double length_penalty = 1.0;  // of beam search
  // Where set and true, generation ends after the current step; what was made
  // is kept. May be set from a signal handler.
  const std::atomic<bool>* cancel = nullptr;
  ProgressCallback prefill_progress;

  // InvalidArgument names the field.
  absl::Status Validate(int64_t vocabulary) const;
};

enum class FinishReason {
  kStop,    // end-of-text token, stop string, or cancelled
  kLength,  // max_tokens, or the context is full
};

// "stop", "length".
absl::string_view FinishReasonName(FinishReason reason);

struct GenerationTimings {
  absl::Duration prefill;    // the prompt, until its logits are there
  absl::Duration decode;     // everything after that
  int64_t decode_steps = 0;  // calls of the model during `decode`
};

struct Generation {
  // What the model chose, with the end-of-text token if that ended it, and
  // with the tokens of a stop string.
  std::vector<int32_t> token_ids;
  // What was shown: the text that follows the prompt's, without end-of-text
  // token and stop string. Empty where the engine has no tokenizer.
  std::string text;
  FinishReason finish_reason = FinishReason::kLength;
  bool cancelled = false;
  GenerationTimings timings;
};

// Returns false to end the generation.
using TextCallback = std::function<bool(absl::string_view text)>;

// Errors: options out of range; an empty prompt; a prompt longer than the
// context, or with ids outside the vocabulary; logits that are not numbers;
// no memory. A prompt that fills the context still yields one token.
absl::StatusOr<Generation> Generate(Engine& engine,
                                    absl::Span<const int32_t> prompt,
                                    const GenerateOptions& options,
                                    const TextCallback& on_text = nullptr);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_TEXT_GENERATOR_H_
