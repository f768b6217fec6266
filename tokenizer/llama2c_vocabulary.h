// Reads llama2.c's tokenizer.bin.
//
// Bytes, little-endian: u32 length of the longest token; then for each token
// f32 score, i32 length, and that many bytes.  There is no count.  Token 0 is
// unknown, 1 BOS, 2 EOS, and from 3 on come 256 bytes, <0x00> to <0xFF>.
// Pieces hold plain spaces in place of U+2581.

#ifndef NIBBLE_TOKENIZER_LLAMA2C_VOCABULARY_H_
#define NIBBLE_TOKENIZER_LLAMA2C_VOCABULARY_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// `source` names the file in errors.
absl::StatusOr<TokenizerSpec> ParseLlama2cVocabulary(absl::string_view bytes,
                                                     const std::string& source);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_LLAMA2C_VOCABULARY_H_
