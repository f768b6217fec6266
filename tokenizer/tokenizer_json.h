// Reads Hugging Face's tokenizer.json, model type BPE.

#ifndef NIBBLE_TOKENIZER_TOKENIZER_JSON_H_
#define NIBBLE_TOKENIZER_TOKENIZER_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// `source` names the file in errors.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view bytes,
                                                 const std::string& source);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_JSON_H_
