// The Llama family outside Hugging Face folders: GGUF files of architecture
// "llama" (Llama, Mistral, SmolLM) and "qwen2", and llama2.c exports.
//
// GGUF stores the q and k rows of "llama" in an order for which the rotary
// pairs are neighbours, hence RopeStyle::kInterleaved; "qwen2" keeps the order
// of halves. llama2.c's are in Meta's order, neighbours too.
#ifndef NIBBLE_MODELS_FAMILIES_LLAMA_GGUF_H_
#define NIBBLE_MODELS_FAMILIES_LLAMA_GGUF_H_

#include "absl/status/statusor.h"
#include "models/families/family.h"
#include "tensor/io/gguf.h"
#include "tensor/io/llama2c.h"

namespace nibble {

// REQUIRES: general.architecture is "llama" or "qwen2".
absl::StatusOr<FamilyModel> ReadLlamaGguf(const GgufFile& file);

absl::StatusOr<FamilyModel> ReadLlama2c(const Llama2cFile& file);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_LLAMA_GGUF_H_
