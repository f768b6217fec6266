#include "models/packed_names.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

NormTensors Norm(const DecoderConfig& config, const std::string& name) {
  NormTensors norm;
  norm.weight = name + ".weight";
  if (config.norm == NormKind::kLayer) norm.bias = name + ".bias";
  return norm;
}

LinearTensors Linear(const std::string& name, int64_t outputs, bool bias) {
  LinearTensors linear;
  linear.weight = {{name + ".weight", 0, outputs}};
  linear.input_order = name + ".input_order";
  if (bias) linear.bias = {{name + ".bias", 0, outputs}};
  return linear;
}

LayerTensors Layer(const DecoderConfig& config, int64_t layer) {
  const std::string prefix = absl::StrCat("layers.", layer, ".");
  LayerTensors names;
  names.attention_norm = Norm(config, prefix + "attention_norm");
  if (config.norm_layout == NormLayout::kSeparate) {
    names.mlp_norm = Norm(config, prefix + "mlp_norm");
  }
  names.qkv = Linear(prefix + "qkv", config.qkv_dim(), config.qkv_bias);
  names.attention =
      Linear(prefix + "attention", config.hidden, config.output_bias);
  names.up = Linear(prefix + "up", config.gated ? 2 * config.ffn : config.ffn,
                    config.mlp_bias);
  names.down = Linear(prefix + "down", config.hidden, config.mlp_bias);
  return names;
}

}  // namespace

DecoderTensors PackedTensorNames(const DecoderConfig& config) {
  DecoderTensors names;
  if (!config.tied_head) names.embedding = "embedding";
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    names.layers.push_back(Layer(config, layer));
  }
  names.final_norm = Norm(config, "final_norm");
  names.head = Linear("head", config.vocabulary, config.head_bias);
  return names;
}

}  // namespace nibble
