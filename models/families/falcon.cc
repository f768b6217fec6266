#include "models/families/falcon.h"

#include <cmath>
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
constexpr char kEmbeddingName[] = "transformer.word_embeddings.weight";
constexpr char kTwoNormsName[] = "transformer.h.0.ln_attn.weight";

// Where the configuration classes differ: the early one assumes a plain
// transformer, the later one the form of Falcon-7B.
struct Defaults {
  bool multi_query;
  bool parallel;
};

// Grouped heads (40B, 180B, 11B), one kv head (7B), or one for each (rw).
int64_t ReadKvHeads(ConfigReader& json, int64_t heads, bool grouped,
                    bool multi_query) {
  const int64_t stored = json.IntOr(
      PresentKey(json, {"num_kv_heads", "n_head_kv"}), heads, {1, kMaxHeads});
  if (grouped) return stored;
  return multi_query ? 1 : heads;  // Whatever num_kv_heads says.
}

// Residual and norms. `grouped` is new_decoder_architecture.
void ReadGraph(ConfigReader& json, bool grouped, bool parallel,
               DecoderConfig& config) {
  config.residual = parallel ? Residual::kParallel : Residual::kSequential;
  constexpr char kNorms[] = "num_ln_in_parallel_attn";
  const int64_t norms = json.IntOr(kNorms, grouped ? 2 : 1, {1, 2});
  const bool shared = parallel && norms == 1;
  config.norm_layout = shared ? NormLayout::kShared : NormLayout::kSeparate;
  if (grouped && !parallel) {
    json.Fail("new_decoder_architecture",
              "is true while parallel_attn is false; no Falcon is built so");
  }
  if (!grouped && norms == 2) {
    json.Fail(kNorms, "is 2, which needs new_decoder_architecture");
  }
  if (json.BoolOr("apply_residual_connection_post_layernorm", false)) {
    json.Fail("apply_residual_connection_post_layernorm",
              "is true, which is not supported");
  }
}

// Rotary embedding, or ALiBi, which Falcon adds before it scales the scores.
void ReadPositions(ConfigReader& json, DecoderConfig& config) {
  config.alibi = json.BoolOr("alibi", false);
  if (!config.alibi) {
    config.rope = ReadRope(json, {RopeStyle::kHalf, config.head_dim,
                                  config.max_positions, 10000.0});
    return;
  }
  config.rope.style = RopeStyle::kNone;
  config.alibi_scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

DecoderConfig ReadConfig(ConfigReader& json, const TensorSource& tensors,
                         const Defaults& defaults) {
  DecoderConfig config;
  config.family = "falcon";
  const absl::string_view heads_key =
      PresentKey(json, {"num_attention_heads", "n_head"});
  config.vocabulary = json.Int("vocab_size", {1, kMaxVocabulary});
  config.hidden =
      json.Int(PresentKey(json, {"hidden_size", "n_embed"}), {1, kMaxHidden});
  config.layers = json.Int(PresentKey(json, {"num_hidden_layers", "n_layer"}),
                           {1, kMaxLayers});
  config.heads = json.Int(heads_key, {1, kMaxHeads});
  config.head_dim = ReadHeadDim(json, config, heads_key);
  const bool grouped =
      json.BoolOr("new_decoder_architecture", tensors.Contains(kTwoNormsName));
  const bool multi_query = json.BoolOr("multi_query", defaults.multi_query);
  config.kv_heads = ReadKvHeads(json, config.heads, grouped, multi_query);
  config.ffn = json.IntOr("ffn_hidden_size", 4 * config.hidden, {1, kMaxFfn});
  config.max_positions =
      json.IntOr("max_position_embeddings", 2048, {1, kMaxPositions});
  config.norm = NormKind::kLayer;
  config.norm_eps = static_cast<float>(
      json.FloatOr("layer_norm_epsilon", 1e-5, {1e-12, 1.0}));
  ReadGraph(json, grouped, json.BoolOr("parallel_attn", defaults.parallel),
            config);
  ReadPositions(json, config);
  config.activation = ReadActivation(json, "activation", "gelu");
  config.gated = false;
  config.qkv_bias = json.BoolOr("bias", false);
  config.output_bias = config.qkv_bias;
  config.mlp_bias = config.qkv_bias;
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  config.tied_head = ReadTied(json, tensors, kHeadName);
  ReadSpecialIds(json, {11, 11}, config);
  return config;
}

void AddNorms(const DecoderConfig& config, const std::string& prefix,
              LayerTensors& names) {
  const bool parallel = config.residual == Residual::kParallel;
  const bool two = config.norm_layout == NormLayout::kSeparate;
  names.attention_norm = LayerNormNames(
      prefix + (parallel && two ? "ln_attn" : "input_layernorm"));
  if (!two) return;
  names.mlp_norm = LayerNormNames(
      prefix + (parallel ? "ln_mlp" : "post_attention_layernorm"));
}

absl::StatusOr<LayerTensors> LayerNames(const TensorSource& tensors,
                                        const DecoderConfig& config,
                                        int64_t layer) {
  const std::string prefix = absl::StrCat("transformer.h.", layer, ".");
  const std::string qkv = prefix + "self_attention.query_key_value";
  const absl::Status stored = CheckGroupedQkv(tensors, qkv, config);
  if (!stored.ok()) return stored;
  LayerTensors names;
  AddNorms(config, prefix, names);
  names.qkv = GroupedQkvRows(qkv, config);
  AddRows(names.attention, prefix + "self_attention.dense", config.hidden,
          config.output_bias);
  AddRows(names.up, prefix + "mlp.dense_h_to_4h", config.ffn, config.mlp_bias);
  AddRows(names.down, prefix + "mlp.dense_4h_to_h", config.hidden,
          config.mlp_bias);
  return names;
}

absl::StatusOr<FamilyModel> Read(ConfigReader& json,
                                 const TensorSource& tensors,
                                 const Defaults& defaults) {
  DecoderConfig config = ReadConfig(json, tensors, defaults);
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
  model.names.final_norm = LayerNormNames("transformer.ln_f");
  model.names.head.weight = {
      {config.tied_head ? kEmbeddingName : kHeadName, 0, config.vocabulary}};
  model.names.ignored = {"*.rotary_emb.inv_freq", "*.maybe_rotary.inv_freq"};
  if (config.tied_head) model.names.ignored.push_back(kHeadName);
  model.config = std::move(config);
  return model;
}

}  // namespace

absl::StatusOr<FamilyModel> ReadFalcon(ConfigReader& json,
                                       const TensorSource& tensors) {
  return Read(json, tensors, {/*multi_query=*/true, /*parallel=*/true});
}

absl::StatusOr<FamilyModel> ReadRefinedWeb(ConfigReader& json,
                                           const TensorSource& tensors) {
  return Read(json, tensors, {/*multi_query=*/false, /*parallel=*/false});
}

}  // namespace nibble
