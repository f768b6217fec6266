// Translates the tokenizer metadata of a GGUF file.

#ifndef NIBBLE_TOKENIZER_GGUF_READER_H_
#define NIBBLE_TOKENIZER_GGUF_READER_H_

#include "absl/status/statusor.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

absl::StatusOr<TokenizerSpec> SpecFromGguf(const GgufVocabulary& vocabulary);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_GGUF_READER_H_
