// The names of a decoder's tensors in a .nib file (docs/packed_format.md), for
// those who write one and those who read it.
//
//   DecoderTensors names = PackedTensorNames(config);
//   names.layers[3].qkv.weight[0]   // {"layers.3.qkv.weight", 0, qkv_dim}
//
// Each matrix is one packed tensor and each bias one plain one; the input order
// of a matrix, a plain one too, is there only where it has one. With a tied
// head `embedding` is empty: a token's row is that of the head.
#ifndef NIBBLE_MODELS_PACKED_NAMES_H_
#define NIBBLE_MODELS_PACKED_NAMES_H_

#include "models/checkpoint.h"
#include "models/decoder_config.h"

namespace nibble {

DecoderTensors PackedTensorNames(const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_MODELS_PACKED_NAMES_H_
