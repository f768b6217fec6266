// GPT-NeoX and Pythia as Hugging Face stores them: LayerNorm before attention
// and before the MLP, which add to the residual one after the other or from the
// same input; rotary embedding in halves over a part of each head; biases on
// every linear but the head, those of attention if attention_bias says so.
//
// q, k and v are one tensor, interleaved by head (tensor_names.h).
//
// `model_type` in config.json is "gpt_neox".
#ifndef NIBBLE_MODELS_FAMILIES_GPT_NEOX_H_
#define NIBBLE_MODELS_FAMILIES_GPT_NEOX_H_

#include "absl/status/statusor.h"
#include "models/config_reader.h"
#include "models/families/family.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

absl::StatusOr<FamilyModel> ReadGptNeoX(ConfigReader& json,
                                        const TensorSource& tensors);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GPT_NEOX_H_
