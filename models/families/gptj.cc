#include "models/families/gptj.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "models/families/hf_fields.h"
#include "models/families/tensor_names.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

constexpr char kHeadName[] = "lm_head.weight";
constexpr char kEmbeddingName[] = "transformer.wte.weight";

// The graph's fixed part.
DecoderConfig GptJGraph() {
  DecoderConfig config;
  config.family = "gptj";
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.gated = false;
  config.mlp_bias = true;
  config.head_bias = true;
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.theta = 10000.0;
  return config;
}

// The configuration class takes the general names for n_embd and its like too.
DecoderConfig ReadConfig(ConfigReader& json, const TensorSource& tensors) {
  DecoderConfig config = GptJGraph();
  const absl::string_view heads_key =
      PresentKey(json, {"n_head", "num_attention_heads"});
  config.vocabulary = json.Int("vocab_size", {1, kMaxVocabulary});
  config.hidden =
      json.Int(PresentKey(json, {"n_embd", "hidden_size"}), {1, kMaxHidden});
  config.layers = json.Int(PresentKey(json, {"n_layer", "num_hidden_layers"}),
                           {1, kMaxLayers});
  config.heads = json.Int(heads_key, {1, kMaxHeads});
  config.kv_heads = config.heads;
  config.head_dim = ReadHeadDim(json, config, heads_key);
  config.ffn = json.IntOr("n_inner", 4 * config.hidden, {1, kMaxFfn});
  config.max_positions =
      json.IntOr(PresentKey(json, {"n_positions", "max_position_embeddings"}),
                 2048, {1, kMaxPositions});
  config.norm_eps = static_cast<float>(
      json.FloatOr("layer_norm_epsilon", 1e-5, {1e-12, 1.0}));
  config.activation = ReadActivation(json, "activation_function", "gelu_new");
  if (json.IsNull("rotary_dim")) {
    json.Fail("rotary_dim",
              "is null; it must be the number of dimensions of a "
              "head that are rotated");
  }
  config.rope.rotary_dims = json.IntOr("rotary_dim", 64, {2, kMaxHeadDim});
  config.rope.max_positions = config.max_positions;
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  config.tied_head = ReadTied(json, tensors, kHeadName);
  ReadSpecialIds(json, {50256, 50256}, config);
  return config;
}

LayerTensors LayerNames(const DecoderConfig& config, int64_t layer) {
  const std::string prefix = absl::StrCat("transformer.h.", layer, ".");
  LayerTensors names;
  names.attention_norm = LayerNormNames(prefix + "ln_1");
  for (const char* projection : {"attn.q_proj", "attn.k_proj", "attn.v_proj"}) {
    AddRows(names.qkv, prefix + projection, config.q_dim(), config.qkv_bias);
  }
  AddRows(names.attention, prefix + "attn.out_proj", config.hidden,
          config.output_bias);
  AddRows(names.up, prefix + "mlp.fc_in", config.ffn, config.mlp_bias);
  AddRows(names.down, prefix + "mlp.fc_out", config.hidden, config.mlp_bias);
  return names;
}

DecoderTensors Names(const DecoderConfig& config) {
  DecoderTensors names;
  names.embedding = kEmbeddingName;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    names.layers.push_back(LayerNames(config, layer));
  }
  names.final_norm = LayerNormNames("transformer.ln_f");
  names.head.weight = {
      {config.tied_head ? kEmbeddingName : kHeadName, 0, config.vocabulary}};
  names.head.bias = {{"lm_head.bias", 0, config.vocabulary}};
  // The first two are causal masks, whatever they are called.
  names.ignored = {"*.attn.bias", "*.attn.masked_bias"};
  if (config.tied_head) names.ignored.push_back(kHeadName);
  return names;
}

}  // namespace

absl::StatusOr<FamilyModel> ReadGptJ(ConfigReader& json,
                                     const TensorSource& tensors) {
  DecoderConfig config = ReadConfig(json, tensors);
  if (!json.status().ok()) return json.status();
  const absl::Status valid = ValidateDecoderConfig(config, json.source());
  if (!valid.ok()) return valid;
  FamilyModel model;
  model.names = Names(config);
  model.config = std::move(config);
  return model;
}

}  // namespace nibble
