// The part of Hugging Face's tokenizer_config.json that changes ids.

#ifndef NIBBLE_TOKENIZER_TOKENIZER_CONFIG_H_
#define NIBBLE_TOKENIZER_TOKENIZER_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// Applies bos_token and eos_token (a string, or an object with "content") and
// add_bos_token and add_eos_token (booleans) to `spec`.  A token that the
// vocabulary lacks is an error only where it would have to be added to texts.
// `source` names the file in errors.
absl::Status ApplyTokenizerConfig(absl::string_view bytes,
                                  const std::string& source,
                                  TokenizerSpec* spec);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_CONFIG_H_
