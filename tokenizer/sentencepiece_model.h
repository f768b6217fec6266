// Reads SentencePiece's tokenizer.model, model type BPE.

#ifndef NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// `source` names the file in errors.  The spec adds BOS, as Llama does; the
// file itself does not say.  Control pieces ("<s>") never match text.
absl::StatusOr<TokenizerSpec> ParseSentencePieceModel(
    absl::string_view bytes, const std::string& source);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_
