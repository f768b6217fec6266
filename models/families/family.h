// What a family file makes of a checkpoint: the decoder's configuration and the
// names of its tensors. A family is translation only; it holds no arithmetic
// and reads no tensor, except to see which ones are there.
#ifndef NIBBLE_MODELS_FAMILIES_FAMILY_H_
#define NIBBLE_MODELS_FAMILIES_FAMILY_H_

#include "models/checkpoint.h"
#include "models/decoder_config.h"

namespace nibble {

struct FamilyModel {
  DecoderConfig config;
  DecoderTensors names;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_FAMILY_H_
