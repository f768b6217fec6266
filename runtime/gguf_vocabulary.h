#ifndef NIBBLE_RUNTIME_GGUF_VOCABULARY_H_
#define NIBBLE_RUNTIME_GGUF_VOCABULARY_H_

// The tokenizer inside a GGUF file.
//
//   absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
//   absl::StatusOr<GgufVocabulary> vocabulary = ReadGgufVocabulary(**file);
//   absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
//       MakeTokenizer(*vocabulary);
//
// The tokenizer package knows no file formats of tensors, and tensor/io knows
// no tokenizers: this is the bridge, and the place where the metadata is
// checked. Errors name the file and the key.

#include "absl/status/statusor.h"
#include "tensor/io/gguf.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// InvalidArgument: a tokenizer.ggml.* key has the wrong type, arrays of the
// vocabulary differ in length, a score is not a number, a token type is
// unknown, a special id is outside the vocabulary. NotFound: the file has no
// vocabulary.
absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& file);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_GGUF_VOCABULARY_H_
