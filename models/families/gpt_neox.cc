#include "models/families/gpt_neox.h"

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

constexpr char kHeadName[] = "embed_out.weight";
constexpr char kEmbeddingName[] = "gpt_neox.embed_in.weight";

// The share of each head's dimensions that is rotated: nested in
// rope_parameters in newer files, flat and under either name in older ones.
double ReadRotaryShare(ConfigReader& json) {
  const FloatRange range = {0.0, 1.0};
  const double flat = json.FloatOr(
      PresentKey(json, {"partial_rotary_factor", "rotary_pct"}), 0.25, range);
  ConfigReader rope = json.Object("rope_parameters");
  const double share = rope.FloatOr("partial_rotary_factor", flat, range);
  json.Adopt(rope.status());
  return share;
}

RopeConfig ReadNeoXRope(ConfigReader& json, const DecoderConfig& config) {
  RopeFields fields;
  fields.style = RopeStyle::kHalf;
  fields.partial = true;
  fields.rotary_dims = static_cast<int64_t>(
      static_cast<double>(config.head_dim) * ReadRotaryShare(json));
  fields.max_positions = config.max_positions;
  fields.default_theta = json.FloatOr("rotary_emb_base", 10000.0, kThetaRange);
  return ReadRope(json, fields);
}

DecoderConfig ReadConfig(ConfigReader& json, const TensorSource& tensors) {
  DecoderConfig config;
  config.family = "gpt_neox";
  config.vocabulary = json.Int("vocab_size", {1, kMaxVocabulary});
  config.hidden = json.Int("hidden_size", {1, kMaxHidden});
  config.ffn = json.Int("intermediate_size", {1, kMaxFfn});
  config.layers = json.Int("num_hidden_layers", {1, kMaxLayers});
  config.heads = json.Int("num_attention_heads", {1, kMaxHeads});
  config.kv_heads = config.heads;
  config.head_dim = ReadHeadDim(json, config, "num_attention_heads");
  config.max_positions =
      json.IntOr("max_position_embeddings", 2048, {1, kMaxPositions});
  config.norm = NormKind::kLayer;
  config.norm_eps =
      static_cast<float>(json.FloatOr("layer_norm_eps", 1e-5, {1e-12, 1.0}));
  config.residual = json.BoolOr("use_parallel_residual", true)
                        ? Residual::kParallel
                        : Residual::kSequential;
  config.activation = ReadActivation(json, "hidden_act", "gelu");
  config.gated = false;
  config.qkv_bias = json.BoolOr("attention_bias", true);
  config.output_bias = config.qkv_bias;
  config.mlp_bias = true;
  config.rope = ReadNeoXRope(json, config);
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  config.tied_head = ReadTied(json, tensors, kHeadName);
  ReadSpecialIds(json, {0, 2}, config);
  return config;
}

absl::StatusOr<LayerTensors> LayerNames(const TensorSource& tensors,
                                        const DecoderConfig& config,
                                        int64_t layer) {
  const std::string prefix = absl::StrCat("gpt_neox.layers.", layer, ".");
  const std::string qkv = prefix + "attention.query_key_value";
  const absl::Status stored = CheckGroupedQkv(tensors, qkv, config);
  if (!stored.ok()) return stored;
  LayerTensors names;
  names.attention_norm = LayerNormNames(prefix + "input_layernorm");
  names.mlp_norm = LayerNormNames(prefix + "post_attention_layernorm");
  names.qkv = GroupedQkvRows(qkv, config);
  AddRows(names.attention, prefix + "attention.dense", config.hidden,
          config.output_bias);
  AddRows(names.up, prefix + "mlp.dense_h_to_4h", config.ffn, config.mlp_bias);
  AddRows(names.down, prefix + "mlp.dense_4h_to_h", config.hidden,
          config.mlp_bias);
  return names;
}

}  // namespace

absl::StatusOr<FamilyModel> ReadGptNeoX(ConfigReader& json,
                                        const TensorSource& tensors) {
  DecoderConfig config = ReadConfig(json, tensors);
  if (!json.status().ok()) return json.status();
  const absl::Status valid = ValidateDecoderConfig(config, json.source());
  if (!valid.ok()) return valid;
  FamilyModel model;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    absl::StatusOr<LayerTensors> names = LayerNames(tensors, config, layer);
    if (!names.ok()) return names.status();
    model.names.layers.push_back(*std::move(names));
  }
  model.names.embedding = kEmbeddingName;
  model.names.final_norm = LayerNormNames("gpt_neox.final_layer_norm");
  model.names.head.weight = {
      {config.tied_head ? kEmbeddingName : kHeadName, 0, config.vocabulary}};
  // The first two are causal masks, whatever they are called.
  model.names.ignored = {"*.attention.bias", "*.attention.masked_bias",
                         "*.rotary_emb.inv_freq"};
  if (config.tied_head) model.names.ignored.push_back(kHeadName);
  model.config = std::move(config);
  return model;
}

}  // namespace nibble
