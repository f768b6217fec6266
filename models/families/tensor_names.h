// Pieces that the families' tensor names are put together from.
//
//   LayerTensors names;
//   names.attention_norm = LayerNormNames("transformer.h.0.ln_1");
//   AddRows(names.down, "transformer.h.0.mlp.fc_out", hidden, /*bias=*/true);
//
// GPT-NeoX and Falcon store q, k and v in one tensor, head by head:
//
//   [kv_heads][heads / kv_heads of q, one of k, one of v][head_dim]
//
// with kv_heads = heads (GPT-NeoX, falcon-rw), 1 (Falcon-7B) or in between
// (Falcon-40B). Cut into thirds, it would give plausible nonsense.
#ifndef NIBBLE_MODELS_FAMILIES_TENSOR_NAMES_H_
#define NIBBLE_MODELS_FAMILIES_TENSOR_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

// Adds name.weight, and name.bias where `bias`, whole, to what is there.
void AddRows(LinearTensors& linear, const std::string& name, int64_t rows,
             bool bias);

// name.weight and name.bias.
NormTensors LayerNormNames(const std::string& name);

// All q, all k, all v out of name.weight (and name.bias, where config.qkv_bias)
// in the order above.
LinearTensors GroupedQkvRows(const std::string& name,
                             const DecoderConfig& config);

// OK when name.weight is there as a [config.qkv_dim(), config.hidden] matrix.
// Asked before GroupedQkvRows, so that a configuration cannot claim more heads,
// and thus ranges, than its file has rows.
absl::Status CheckGroupedQkv(const TensorSource& tensors,
                             const std::string& name,
                             const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_TENSOR_NAMES_H_
