// The sizes of well-known models, to measure speed with weights that nobody has
// to download.
//
//   absl::StatusOr<DecoderConfig> config = SyntheticShape("tinyllama-1.1b");
//
// Each is the configuration that the model's own config.json states:
//
//   tinyllama-1.1b  TinyLlama/TinyLlama-1.1B   Llama, 32 heads on 4 KV heads
//   llama-2-7b      meta-llama/Llama-2-7b-hf   Llama
//   gptj-6b         EleutherAI/gpt-j-6b        GPT-J, parallel, one norm
//   gpt-neox-20b    EleutherAI/gpt-neox-20b    GPT-NeoX, parallel, two norms
//   falcon-7b       tiiuae/falcon-7b           Falcon, 71 heads on one KV head
#ifndef NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_SHAPES_H_
#define NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/decoder_config.h"

namespace nibble {

// InvalidArgument lists the names.
absl::StatusOr<DecoderConfig> SyntheticShape(absl::string_view name);

// The names, smallest model first.
std::vector<std::string> SyntheticShapeNames();

// What each layer's matrices hold together, and the head's: [outputs, inputs]
// products, biases apart.
int64_t LayerWeightCount(const DecoderConfig& config);
int64_t HeadWeightCount(const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_SHAPES_H_
