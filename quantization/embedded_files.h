// What a packed model carries along from its checkpoint, so that it needs no
// other file: tokenizer, chat template, generation settings.
#ifndef NIBBLE_QUANTIZATION_EMBEDDED_FILES_H_
#define NIBBLE_QUANTIZATION_EMBEDDED_FILES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "tensor/io/packed_file.h"

namespace nibble {

// From a Hugging Face folder: those of tokenizer.json, tokenizer.model,
// tokenizer_config.json, special_tokens_map.json, chat_template.jinja and
// generation_config.json that are there. From a GGUF file: "metadata.gguf", its
// header and key/values. Of a llama2.c file: the vocabulary beside it, as
// "tokenizer.bin", or else a folder's tokenizer files.
// Errors name the file: it cannot be read, is empty or far too large.
absl::StatusOr<std::vector<EmbeddedFile>> FilesToEmbed(
    const Checkpoint& checkpoint);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EMBEDDED_FILES_H_
