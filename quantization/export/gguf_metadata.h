// The metadata of an exported GGUF file: what the model is, and its tokenizer.
//
//   absl::StatusOr<GgufMetadata> metadata =
//       ExportedMetadata(checkpoint, plan->architecture, "Q4_0");
//
// Of a GGUF file everything is taken over as it stands, but for the type of the
// weights. Of a folder (or a llama2.c file) the keys are those that llama.cpp's
// converter writes.
#ifndef NIBBLE_QUANTIZATION_EXPORT_GGUF_METADATA_H_
#define NIBBLE_QUANTIZATION_EXPORT_GGUF_METADATA_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf_writer.h"

namespace nibble {

// `weights` is the type of most matrices: f32, f16, bf16, q4_0, q4_1 or q8_0.
// NotFound: there is no tokenizer. Other errors are those of ToGgufVocabulary,
// or name the file or setting that has no place in GGUF.
absl::StatusOr<GgufMetadata> ExportedMetadata(const Checkpoint& checkpoint,
                                              const std::string& architecture,
                                              DType weights);

// What rope_freqs.weight must hold, [rotary_dims / 2]: by how much each
// frequency is divided. Empty: the model needs none. That is where llama3's
// scaling goes, for which GGUF has no keys.
std::vector<float> RopeDivisors(const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GGUF_METADATA_H_
