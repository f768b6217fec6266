#include "models/families/gptj_gguf.h"

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
  AddRows(names.qkv, block + "attn_q", config.q_dim(), false);
  AddRows(names.qkv, block + "attn_k", config.kv_dim(), false);
  AddRows(names.qkv, block + "attn_v", config.kv_dim(), false);
  AddRows(names.attention, block + "attn_output", config.hidden, false);
  AddRows(names.up, block + "ffn_up", config.ffn, true);
  AddRows(names.down, block + "ffn_down", config.hidden, true);
  return names;
}

}  // namespace

absl::StatusOr<FamilyModel> ReadGptJGguf(const GgufFile& file) {
  GgufReader reader(file, "gptj");
  FamilyModel model;
  DecoderConfig& config = model.config;
  config.family = "gptj";
  ReadGgufSizes(reader, config);
  ReadGgufLayerNorm(reader, config);
  ReadGgufRope(reader, config);
  config.rope.style = RopeStyle::kInterleaved;
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.activation = ReadGgufActivation(reader);
  config.gated = false;
  config.mlp_bias = true;
  config.head_bias = true;
  const absl::Status status = FinishGgufConfig(file, reader, config);
  if (!status.ok()) return status;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    model.names.layers.push_back(LayerNames(config, layer));
  }
  NameGgufEnds(config, model.names);
  return model;
}

}  // namespace nibble
