#include "models/families/llama.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/checkpoint.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "models/families/hf_fields.h"
#include "models/families/tensor_names.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

// Where the configuration classes of the three differ.
struct Defaults {
  const char* family;
  int64_t kv_heads;  // 0: as many as heads
  int64_t max_positions;
};

constexpr char kHeadName[] = "lm_head.weight";
constexpr char kEmbeddingName[] = "model.embed_tokens.weight";

// Sizes, norm, activation, rotary embedding and special ids.
DecoderConfig ReadCommon(ConfigReader& json, const Defaults& defaults) {
  DecoderConfig config;
  config.family = defaults.family;
  config.vocabulary = json.Int("vocab_size", {1, kMaxVocabulary});
  config.hidden = json.Int("hidden_size", {1, kMaxHidden});
  config.ffn = json.Int("intermediate_size", {1, kMaxFfn});
  config.layers = json.Int("num_hidden_layers", {1, kMaxLayers});
  config.heads = json.Int("num_attention_heads", {1, kMaxHeads});
  const bool kv_given = json.Has("num_key_value_heads");
  const bool kv_default =
      !json.IsNull("num_key_value_heads") && defaults.kv_heads > 0;
  config.kv_heads = kv_given ? json.Int("num_key_value_heads", {1, kMaxHeads})
                             : (kv_default ? defaults.kv_heads : config.heads);
  if (json.Has("head_dim")) {
    config.head_dim = json.Int("head_dim", {1, kMaxHeadDim});
  } else {
    config.head_dim = config.hidden / config.heads;
    if (config.hidden % config.heads != 0) {
      json.Fail("num_attention_heads",
                absl::StrCat("is ", config.heads,
                             ", which does not divide hidden_size ",
                             config.hidden, ", and head_dim is not given"));
    }
  }
  config.max_positions = json.IntOr("max_position_embeddings",
                                    defaults.max_positions, {1, kMaxPositions});
  config.norm = NormKind::kRms;
  config.norm_eps =
      static_cast<float>(json.FloatOr("rms_norm_eps", 1e-6, {1e-12, 1.0}));
  config.activation = ReadActivation(json, "hidden_act", "silu");
  config.gated = true;
  config.rope = ReadRope(
      json, {RopeStyle::kHalf, config.head_dim, config.max_positions, 10000.0});
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  return config;
}

LayerTensors LayerNames(const DecoderConfig& config, int64_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  LayerTensors names;
  names.attention_norm.weight = prefix + "input_layernorm.weight";
  names.mlp_norm.weight = prefix + "post_attention_layernorm.weight";
  AddRows(names.qkv, attention + "q_proj", config.q_dim(), config.qkv_bias);
  AddRows(names.qkv, attention + "k_proj", config.kv_dim(), config.qkv_bias);
  AddRows(names.qkv, attention + "v_proj", config.kv_dim(), config.qkv_bias);
  AddRows(names.attention, attention + "o_proj", config.hidden,
          config.output_bias);
  AddRows(names.up, mlp + "gate_proj", config.ffn, config.mlp_bias);
  AddRows(names.up, mlp + "up_proj", config.ffn, config.mlp_bias);
  AddRows(names.down, mlp + "down_proj", config.hidden, config.mlp_bias);
  return names;
}

DecoderTensors Names(const DecoderConfig& config) {
  DecoderTensors names;
  names.embedding = kEmbeddingName;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    names.layers.push_back(LayerNames(config, layer));
  }
  names.final_norm.weight = "model.norm.weight";
  names.head.weight = {
      {config.tied_head ? kEmbeddingName : kHeadName, 0, config.vocabulary}};
  // Files of before 2024 store the rotary frequencies of each layer.
  names.ignored = {"*.rotary_emb.inv_freq"};
  // With tied weights some writers store the embedding twice.
  if (config.tied_head) names.ignored.push_back(kHeadName);
  return names;
}

absl::StatusOr<FamilyModel> Finish(ConfigReader& json, DecoderConfig config,
                                   const TensorSource& tensors) {
  config.tied_head = ReadTied(json, tensors, kHeadName);
  if (!json.status().ok()) return json.status();
  const absl::Status valid = ValidateDecoderConfig(config, json.source());
  if (!valid.ok()) return valid;
  FamilyModel model;
  model.names = Names(config);
  model.config = std::move(config);
  return model;
}

// Which layers of Qwen2 have a window. Newer files name each layer's type;
// older ones give the number of the first windowed layer.
void ReadQwen2Windows(ConfigReader& json, DecoderConfig& config) {
  const bool used = json.BoolOr("use_sliding_window", false);
  const int64_t window = json.IntOr("sliding_window", 4096, {1, kMaxPositions});
  const int64_t first = json.IntOr("max_window_layers", 28, {0, kMaxLayers});
  const std::vector<std::string> types = json.StringList("layer_types");
  if (!types.empty() && types.size() != config.windows.size()) {
    json.Fail("layer_types", absl::StrCat("has ", types.size(), " entries for ",
                                          config.layers, " layers"));
    return;
  }
  if (json.IsNull("sliding_window")) return;
  for (size_t layer = 0; layer < config.windows.size(); ++layer) {
    bool windowed = used && static_cast<int64_t>(layer) >= first;
    if (!types.empty()) {
      windowed = types[layer] == "sliding_attention";
      if (!windowed && types[layer] != "full_attention") {
        json.Fail("layer_types",
                  absl::StrCat("holds \"", types[layer],
                               "\", which is not supported; supported: "
                               "full_attention, sliding_attention"));
        return;
      }
    }
    if (windowed) config.windows[layer] = window;
  }
}

}  // namespace

absl::StatusOr<FamilyModel> ReadLlama(ConfigReader& json,
                                      const TensorSource& tensors) {
  DecoderConfig config = ReadCommon(json, {"llama", 0, 2048});
  config.qkv_bias = json.BoolOr("attention_bias", false);
  config.output_bias = config.qkv_bias;
  config.mlp_bias = json.BoolOr("mlp_bias", false);
  ReadSpecialIds(json, {1, 2}, config);
  return Finish(json, std::move(config), tensors);
}

absl::StatusOr<FamilyModel> ReadMistral(ConfigReader& json,
                                        const TensorSource& tensors) {
  DecoderConfig config = ReadCommon(json, {"mistral", 8, 131072});
  // Absent means 4096; null means that every layer sees everything.
  if (!json.IsNull("sliding_window")) {
    const int64_t window =
        json.IntOr("sliding_window", 4096, {1, kMaxPositions});
    config.windows.assign(config.windows.size(), window);
  }
  ReadSpecialIds(json, {1, 2}, config);
  return Finish(json, std::move(config), tensors);
}

absl::StatusOr<FamilyModel> ReadQwen2(ConfigReader& json,
                                      const TensorSource& tensors) {
  DecoderConfig config = ReadCommon(json, {"qwen2", 32, 32768});
  config.qkv_bias = true;
  ReadQwen2Windows(json, config);
  ReadSpecialIds(json, {}, config);
  return Finish(json, std::move(config), tensors);
}

}  // namespace nibble
