#include "models/families/llama_gguf.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "models/families/gguf_reader.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/llama2c.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

constexpr char kDivisorsName[] = "rope_freqs.weight";

void AddLinear(LinearTensors& linear, const std::string& name, int64_t rows,
               bool bias) {
  linear.weight.push_back(RowRange{name + ".weight", 0, rows});
  if (bias) linear.bias.push_back(RowRange{name + ".bias", 0, rows});
}

LayerTensors LayerNames(const DecoderConfig& config, int64_t layer) {
  const std::string block = absl::StrCat("blk.", layer, ".");
  LayerTensors names;
  names.attention_norm.weight = block + "attn_norm.weight";
  names.mlp_norm.weight = block + "ffn_norm.weight";
  AddLinear(names.qkv, block + "attn_q", config.q_dim(), config.qkv_bias);
  AddLinear(names.qkv, block + "attn_k", config.kv_dim(), config.qkv_bias);
  AddLinear(names.qkv, block + "attn_v", config.kv_dim(), config.qkv_bias);
  AddLinear(names.attention, block + "attn_output", config.hidden,
            config.output_bias);
  AddLinear(names.up, block + "ffn_gate", config.ffn, config.mlp_bias);
  AddLinear(names.up, block + "ffn_up", config.ffn, config.mlp_bias);
  AddLinear(names.down, block + "ffn_down", config.hidden, config.mlp_bias);
  return names;
}

DecoderTensors Names(const DecoderConfig& config) {
  DecoderTensors names;
  names.embedding = "token_embd.weight";
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    names.layers.push_back(LayerNames(config, layer));
  }
  names.final_norm.weight = "output_norm.weight";
  names.head.weight = {
      RowRange{config.tied_head ? "token_embd.weight" : "output.weight", 0,
               config.vocabulary}};
  // rope_freqs was read with the configuration; attn_rot_embd is a buffer.
  names.ignored = {kDivisorsName, "*.attn_rot_embd"};
  return names;
}

void ReadSizes(GgufReader& reader, DecoderConfig& config) {
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

void ReadRope(GgufReader& reader, DecoderConfig& config) {
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

// rope_freqs.weight carries llama3 scaling, worked out by the converter.
absl::Status ReadDivisors(const TensorSource& tensors, DecoderConfig& config) {
  if (!tensors.Contains(kDivisorsName)) return absl::OkStatus();
  const absl::StatusOr<TensorView> view = tensors.Find(kDivisorsName);
  if (!view.ok()) return view.status();
  if (view->dtype != DType::kF32 || view->shape.rank() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensors.path(), ": tensor ", kDivisorsName, " is ",
                     DTypeName(view->dtype), " ", view->shape.ToString(),
                     "; expected f32 of one dimension"));
  }
  const absl::Span<const float> values = view->As<float>();
  config.rope_divisors.assign(values.begin(), values.end());
  return absl::OkStatus();
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

absl::StatusOr<FamilyModel> ReadLlamaGguf(const GgufFile& file) {
  const absl::StatusOr<std::string> architecture =
      file.GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  GgufReader reader(file, *architecture);
  DecoderConfig config;
  config.family = *architecture;
  config.rope.style =
      *architecture == "qwen2" ? RopeStyle::kHalf : RopeStyle::kInterleaved;
  ReadSizes(reader, config);
  config.norm_eps = static_cast<float>(
      reader.FloatOr("attention.layer_norm_rms_epsilon", 1e-6, {1e-12, 1.0}));
  ReadRope(reader, config);
  absl::Status status = ReadDivisors(file, config);
  if (!status.ok()) return status;
  status = ReadVocabulary(file, reader, config);
  if (!status.ok()) return status;
  ReadSpecialIds(reader, config);
  if (!reader.status().ok()) return reader.status();

  // No key tells about biases: the tensors do.
  config.qkv_bias = file.Contains("blk.0.attn_q.bias");
  config.output_bias = file.Contains("blk.0.attn_output.bias");
  config.mlp_bias = file.Contains("blk.0.ffn_gate.bias");
  config.tied_head = !file.Contains("output.weight");
  status = ValidateDecoderConfig(config, file.path());
  if (!status.ok()) return status;
  FamilyModel model;
  model.names = Names(config);
  model.config = std::move(config);
  return model;
}

absl::StatusOr<FamilyModel> ReadLlama2c(const Llama2cFile& file) {
  const Llama2cHeader& header = file.header();
  DecoderConfig config;
  config.family = "llama";
  config.vocabulary = header.vocabulary;
  config.hidden = header.dim;
  config.layers = header.layers;
  config.heads = header.heads;
  config.kv_heads = header.kv_heads;
  config.head_dim = header.dim / header.heads;
  config.ffn = header.hidden_dim;
  config.max_positions = header.sequence_length;
  config.norm_eps = 1e-5f;
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.rotary_dims = config.head_dim;
  config.rope.theta = 10000.0;
  config.rope.max_positions = config.max_positions;
  config.tied_head = header.tied_head;
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  // The format has no ids. Its trainer puts <s> before each story, so <s>
  // also marks the end of one.
  if (config.vocabulary > 2) {
    config.bos_id = 1;
    config.eos_ids = {1, 2};
  }
  const absl::Status status = ValidateDecoderConfig(config, file.path());
  if (!status.ok()) return status;
  FamilyModel model;
  model.names = Names(config);
  model.config = std::move(config);
  return model;
}

}  // namespace nibble
