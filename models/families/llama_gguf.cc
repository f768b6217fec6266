#include "models/families/llama_gguf.h"

#include <cstdint>
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
#include "models/families/gguf_fields.h"
#include "models/families/gguf_reader.h"
#include "models/families/tensor_names.h"
#include "tensor/dtype.h"
#include "tensor/io/gguf.h"
#include "tensor/io/llama2c.h"
#include "tensor/io/tensor_source.h"

namespace nibble {
namespace {

constexpr char kDivisorsName[] = "rope_freqs.weight";

LayerTensors LayerNames(const DecoderConfig& config, int64_t layer) {
  const std::string block = absl::StrCat("blk.", layer, ".");
  LayerTensors names;
  names.attention_norm.weight = block + "attn_norm.weight";
  names.mlp_norm.weight = block + "ffn_norm.weight";
  AddRows(names.qkv, block + "attn_q", config.q_dim(), config.qkv_bias);
  AddRows(names.qkv, block + "attn_k", config.kv_dim(), config.qkv_bias);
  AddRows(names.qkv, block + "attn_v", config.kv_dim(), config.qkv_bias);
  AddRows(names.attention, block + "attn_output", config.hidden,
          config.output_bias);
  AddRows(names.up, block + "ffn_gate", config.ffn, config.mlp_bias);
  AddRows(names.up, block + "ffn_up", config.ffn, config.mlp_bias);
  AddRows(names.down, block + "ffn_down", config.hidden, config.mlp_bias);
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
  ReadGgufSizes(reader, config);
  config.norm_eps = static_cast<float>(
      reader.FloatOr("attention.layer_norm_rms_epsilon", 1e-6, {1e-12, 1.0}));
  ReadGgufRope(reader, config);
  absl::Status status = ReadDivisors(file, config);
  if (!status.ok()) return status;
  // No key tells about biases: the tensors do.
  config.qkv_bias = file.Contains("blk.0.attn_q.bias");
  config.output_bias = file.Contains("blk.0.attn_output.bias");
  config.mlp_bias = file.Contains("blk.0.ffn_gate.bias");
  status = FinishGgufConfig(file, reader, config);
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
