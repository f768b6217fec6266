// The way back from gguf_vocabulary.h: a tokenizer as the metadata of a GGUF
// file.
//
//   TokenizerFiles files = ...;  // of a Hugging Face folder
//   absl::StatusOr<GgufVocabulary> v = ToGgufVocabulary(files, 32000);
//   if (!v.ok()) return v.status();
//   MakeTokenizer(*v);  // gives the ids that MakeTokenizer(files) gives

#ifndef NIBBLE_TOKENIZER_GGUF_EXPORT_H_
#define NIBBLE_TOKENIZER_GGUF_EXPORT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// `vocabulary` is the number of the model's embeddings: ids that no token has
// become unused tokens "[PAD<id>]", as llama.cpp expects.
//
// Byte-level vocabularies become the type "gpt2". SentencePiece vocabularies
// become "llama", for whose scores tokenizer.model is needed; tokens that only
// tokenizer.json adds come from there. What GGUF has no word for is an error
// that names it: normalizers, pre-tokenizers, templates other than BOS in front
// and EOS behind, more tokens than `vocabulary`. One thing is lost: special
// tokens that take the white space beside them (lstrip, rstrip).
absl::StatusOr<GgufVocabulary> ToGgufVocabulary(const TokenizerFiles& files,
                                                int64_t vocabulary);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_GGUF_EXPORT_H_
