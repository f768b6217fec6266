// Parts of GGUF metadata that mean the same in every architecture: to GGUF what
// hf_fields.h is to config.json.
//
//   GgufReader reader(file, "llama");
//   ReadGgufSizes(reader, config);
//   ReadGgufRope(reader, config);
//
// Problems are recorded in the reader, except those that come back as a status.
#ifndef NIBBLE_MODELS_FAMILIES_GGUF_FIELDS_H_
#define NIBBLE_MODELS_FAMILIES_GGUF_FIELDS_H_

#include "absl/status/status.h"
#include "kernels/elementwise/activation.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/families/gguf_reader.h"
#include "tensor/io/gguf.h"

namespace nibble {

// Layers, hidden, heads, head_dim, ffn, positions and windows.
void ReadGgufSizes(GgufReader& reader, DecoderConfig& config);

// Everything of config.rope but its style. REQUIRES: sizes were read.
void ReadGgufRope(GgufReader& reader, DecoderConfig& config);

// attention.layer_norm_epsilon, for the architectures with LayerNorm.
void ReadGgufLayerNorm(GgufReader& reader, DecoderConfig& config);

// Vocabulary, tied head and special ids, and with them the whole configuration
// checked: the last step. The vocabulary is as large as the embedding; metadata
// may repeat it.
absl::Status FinishGgufConfig(const GgufFile& file, GgufReader& reader,
                              DecoderConfig& config);

// The activation of an MLP without gate. GGUF has no key for it: ggml's graphs
// have the tanh form of GELU, whatever the model was trained with. Files of
// this project say what it was in ARCH.activation, by Hugging Face's names.
Activation ReadGgufActivation(GgufReader& reader);

// The embedding, the final LayerNorm and the head, tied or not.
void NameGgufEnds(const DecoderConfig& config, DecoderTensors& names);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GGUF_FIELDS_H_
