#include "models/families/gguf_fields.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/families/gguf_reader.h"
#include "models/families/hf_fields.h"
#include "models/families/tensor_names.h"
#include "tensor/io/gguf.h"
#include "tensor/view.h"

namespace nibble {
namespace {

void ReadYarn(GgufReader& reader, RopeScaling& scaling) {
  scaling.type = RopeScaling::kYarn;
  scaling.beta_fast = static_cast<float>(
      reader.FloatOr("rope.scaling.yarn_beta_fast", 32.0, {1e-6, 1e6}));
  scaling.beta_slow = static_cast<float>(
      reader.FloatOr("rope.scaling.yarn_beta_slow", 1.0, {1e-6, 1e6}));
  if (scaling.beta_fast <= scaling.beta_slow) {
    reader.Fail("rope.scaling.yarn_beta_fast", "must be above yarn_beta_slow");
  }
  // Here the key scales the usual magnitude; in config.json it replaces it.
  const double scale =
      reader.FloatOr("rope.scaling.attn_factor", 1.0, {1e-6, 1e3});
  scaling.attention_factor = static_cast<float>(
      scale * (1.0 + 0.1 * std::log(static_cast<double>(scaling.factor))));
}

// The vocabulary is as large as the embedding; metadata may repeat it.
absl::Status ReadVocabulary(const GgufFile& file, GgufReader& reader,
                            DecoderConfig& config) {
  const absl::StatusOr<TensorView> embedding = file.Find("token_embd.weight");
  if (!embedding.ok()) return embedding.status();
  if (embedding->shape.rank() != 2 || embedding->shape.dim(0) < 1 ||
      embedding->shape.dim(0) > kMaxVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": tensor token_embd.weight has shape ",
        embedding->shape.ToString(), "; expected [vocabulary, hidden size]"));
  }
  config.vocabulary = embedding->shape.dim(0);
  if (reader.IntOr("vocab_size", config.vocabulary, {1, kMaxVocabulary}) !=
      config.vocabulary) {
    reader.Fail("vocab_size",
                absl::StrCat("does not fit tensor token_embd.weight of shape ",
                             embedding->shape.ToString()));
  }
  return absl::OkStatus();
}

void ReadSpecialIds(GgufReader& reader, DecoderConfig& config) {
  config.bos_id =
      reader.TokenId("tokenizer.ggml.bos_token_id", config.vocabulary);
  // Chat models end a turn with a token of its own.
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"}) {
    const std::optional<int32_t> id = reader.TokenId(key, config.vocabulary);
    if (!id) continue;
    bool known = false;
    for (const int32_t other : config.eos_ids) known |= other == *id;
    if (!known) config.eos_ids.push_back(*id);
  }
}

}  // namespace

void ReadGgufSizes(GgufReader& reader, DecoderConfig& config) {
  config.hidden = reader.Int("embedding_length", {1, kMaxHidden});
  config.layers = reader.Int("block_count", {1, kMaxLayers});
  config.ffn = reader.Int("feed_forward_length", {1, kMaxFfn});
  config.heads = reader.Int("attention.head_count", {1, kMaxHeads});
  config.kv_heads =
      reader.IntOr("attention.head_count_kv", config.heads, {1, kMaxHeads});
  config.max_positions = reader.Int("context_length", {1, kMaxPositions});
  if (reader.Has("attention.key_length")) {
    config.head_dim = reader.Int("attention.key_length", {1, kMaxHeadDim});
  } else {
    config.head_dim = config.hidden / config.heads;
    if (config.hidden % config.heads != 0) {
      reader.Fail("attention.head_count",
                  absl::StrCat("is ", config.heads,
                               ", which does not divide the hidden size ",
                               config.hidden));
    }
  }
  if (reader.IntOr("attention.value_length", config.head_dim,
                   {1, kMaxHeadDim}) != config.head_dim) {
    reader.Fail("attention.value_length",
                "differs from the key length, which is not supported");
  }
  if (reader.IntOr("expert_count", 0, {0, kMaxFfn}) > 0) {
    reader.Fail("expert_count",
                "is set: mixture-of-experts models are not supported");
  }
  const int64_t window =
      reader.IntOr("attention.sliding_window", 0, {0, kMaxPositions});
  config.windows.assign(static_cast<size_t>(config.layers), window);
}

void ReadGgufRope(GgufReader& reader, DecoderConfig& config) {
  RopeConfig& rope = config.rope;
  rope.rotary_dims =
      reader.IntOr("rope.dimension_count", config.head_dim, {2, kMaxHeadDim});
  rope.theta = reader.FloatOr("rope.freq_base", 10000.0, {2.0, 1e15});
  rope.max_positions = config.max_positions;
  // Files of before GGUF v3 had one key for linear scaling.
  const double old_factor =
      reader.FloatOr("rope.scale_linear", 1.0, {1.0, 1e6});
  const std::string type = reader.StringOr(
      "rope.scaling.type", old_factor > 1.0 ? "linear" : "none");
  if (type == "none" || type.empty()) return;
  if (type != "linear" && type != "yarn") {
    reader.Fail("rope.scaling.type",
                absl::StrCat("is \"", type,
                             "\", which is not supported; supported: none, "
                             "linear, yarn"));
    return;
  }
  rope.scaling.factor = static_cast<float>(
      reader.FloatOr("rope.scaling.factor", old_factor, {1.0, 1e6}));
  rope.scaling.original_max_positions =
      reader.IntOr("rope.scaling.original_context_length", config.max_positions,
                   {1, kMaxPositions});
  if (type == "linear") {
    rope.scaling.type = RopeScaling::kLinear;
  } else {
    ReadYarn(reader, rope.scaling);
  }
}

void ReadGgufLayerNorm(GgufReader& reader, DecoderConfig& config) {
  config.norm = NormKind::kLayer;
  config.norm_eps = static_cast<float>(
      reader.FloatOr("attention.layer_norm_epsilon", 1e-5, {1e-12, 1.0}));
}

absl::Status FinishGgufConfig(const GgufFile& file, GgufReader& reader,
                              DecoderConfig& config) {
  const absl::Status status = ReadVocabulary(file, reader, config);
  if (!status.ok()) return status;
  config.tied_head = !file.Contains("output.weight");
  ReadSpecialIds(reader, config);
  if (!reader.status().ok()) return reader.status();
  return ValidateDecoderConfig(config, file.path());
}

Activation ReadGgufActivation(GgufReader& reader) {
  const std::string name = reader.StringOr("activation", "gelu_new");
  if (const std::optional<Activation> found = ActivationOf(name)) return *found;
  reader.Fail("activation", absl::StrCat("is \"", name,
                                         "\", which is not supported; "
                                         "supported: ",
                                         ActivationNames()));
  return Activation::kGeluTanh;
}

void NameGgufEnds(const DecoderConfig& config, DecoderTensors& names) {
  const char* const embedding = "token_embd.weight";
  names.embedding = embedding;
  names.final_norm = LayerNormNames("output_norm");
  names.head.weight = {
      {config.tied_head ? embedding : "output.weight", 0, config.vocabulary}};
  if (config.head_bias) {
    names.head.bias = {{"output.bias", 0, config.vocabulary}};
  }
}

}  // namespace nibble
