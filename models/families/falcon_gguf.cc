#include "models/families/falcon_gguf.h"

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
  if (config.norm_layout == NormLayout::kShared) {
    names.attention_norm = LayerNormNames(block + "attn_norm");
  } else {
    names.attention_norm = LayerNormNames(block + "attn_norm_2");
    names.mlp_norm = LayerNormNames(block + "attn_norm");
  }
  AddRows(names.qkv, block + "attn_qkv", config.qkv_dim(), false);
  AddRows(names.attention, block + "attn_output", config.hidden, false);
  AddRows(names.up, block + "ffn_up", config.ffn, false);
  AddRows(names.down, block + "ffn_down", config.hidden, false);
  return names;
}

// The only order of q, k and v that was ever written.
void CheckDataLayout(GgufReader& reader) {
  constexpr char kKey[] = "tensor_data_layout";
  const std::string layout = reader.StringOr(kKey, "jploski");
  if (layout == "jploski") return;
  reader.Fail(kKey, absl::StrCat("is \"", layout,
                                 "\", which is not supported; "
                                 "supported: jploski"));
}

}  // namespace

absl::StatusOr<FamilyModel> ReadFalconGguf(const GgufFile& file) {
  GgufReader reader(file, "falcon");
  FamilyModel model;
  DecoderConfig& config = model.config;
  config.family = "falcon";
  CheckDataLayout(reader);
  ReadGgufSizes(reader, config);
  ReadGgufLayerNorm(reader, config);
  ReadGgufRope(reader, config);
  config.rope.style = RopeStyle::kHalf;
  config.residual = Residual::kParallel;
  config.norm_layout = file.Contains("blk.0.attn_norm_2.weight")
                           ? NormLayout::kSeparate
                           : NormLayout::kShared;
  config.activation = ReadGgufActivation(reader);
  config.gated = false;
  const absl::Status status = FinishGgufConfig(file, reader, config);
  if (!status.ok()) return status;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    model.names.layers.push_back(LayerNames(config, layer));
  }
  NameGgufEnds(config, model.names);
  return model;
}

}  // namespace nibble
