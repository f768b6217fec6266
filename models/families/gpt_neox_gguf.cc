#include "models/families/gpt_neox_gguf.h"

#include <cstdint>
#include <string>

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
#include "tensor/io/gguf.h"

namespace nibble {
namespace {

LayerTensors LayerNames(const DecoderConfig& config, int64_t layer) {
  const std::string block = absl::StrCat("blk.", layer, ".");
  LayerTensors names;
  names.attention_norm = LayerNormNames(block + "attn_norm");
  names.mlp_norm = LayerNormNames(block + "ffn_norm");
  AddRows(names.qkv, block + "attn_qkv", config.qkv_dim(), config.qkv_bias);
  AddRows(names.attention, block + "attn_output", config.hidden,
          config.output_bias);
  AddRows(names.up, block + "ffn_up", config.ffn, config.mlp_bias);
  AddRows(names.down, block + "ffn_down", config.hidden, config.mlp_bias);
  return names;
}

}  // namespace

absl::StatusOr<FamilyModel> ReadGptNeoXGguf(const GgufFile& file) {
  GgufReader reader(file, "gptneox");
  FamilyModel model;
  DecoderConfig& config = model.config;
  config.family = "gpt_neox";
  ReadGgufSizes(reader, config);
  ReadGgufLayerNorm(reader, config);
  ReadGgufRope(reader, config);
  config.rope.style = RopeStyle::kHalf;
  config.residual = reader.BoolOr("use_parallel_residual", true)
                        ? Residual::kParallel
                        : Residual::kSequential;
  config.activation = ReadGgufActivation(reader);
  config.gated = false;
  config.qkv_bias = file.Contains("blk.0.attn_qkv.bias");
  config.output_bias = file.Contains("blk.0.attn_output.bias");
  config.mlp_bias = file.Contains("blk.0.ffn_up.bias");
  const absl::Status status = FinishGgufConfig(file, reader, config);
  if (!status.ok()) return status;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    model.names.layers.push_back(LayerNames(config, layer));
  }
  NameGgufEnds(config, model.names);
  return model;
}

}  // namespace nibble
