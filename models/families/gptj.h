// GPT-J as Hugging Face stores it: one LayerNorm feeds attention and MLP, which
// add to the same residual; rotary embedding of neighbouring pairs over the
// first rotary_dim dimensions of a head; biases on the MLP and the head alone.
//
// `model_type` in config.json is "gptj".
#ifndef NIBBLE_MODELS_FAMILIES_GPTJ_H_
#define NIBBLE_MODELS_FAMILIES_GPTJ_H_

#include "absl/status/statusor.h"
#include "models/config_reader.h"
#include "models/families/family.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

absl::StatusOr<FamilyModel> ReadGptJ(ConfigReader& json,
                                     const TensorSource& tensors);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GPTJ_H_
