#ifndef NIBBLE_RUNTIME_LOAD_TOKENIZER_H_
#define NIBBLE_RUNTIME_LOAD_TOKENIZER_H_

// Opens a tokenizer wherever it may be.
//
//   auto tokenizer = OpenTokenizer("models/smollm2.gguf");
//   auto same = OpenTokenizer("models/tolstoy-llama");   // a folder
//   auto file = OpenTokenizer("tokenizer.model");

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// `path` is a Hugging Face folder, a GGUF or .nib file (by their magic), a
// tokenizer.json (by its ending .json), or a SentencePiece tokenizer.model.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(
    const std::string& path);

// The tokenizer of an opened checkpoint; null where it has none. A llama2.c
// file may have one beside it: tok<vocabulary>.bin, tokenizer.bin,
// tokenizer.json or tokenizer.model, in this order.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_LOAD_TOKENIZER_H_
