// The Llama family as Hugging Face stores it: Llama 1 to 3, Mistral, Qwen2.
// All are one graph (RMSNorm, rotary embedding in halves, gated MLP); they
// differ in biases, attention windows and defaults.
//
// The names below are `model_type` in config.json.
#ifndef NIBBLE_MODELS_FAMILIES_LLAMA_H_
#define NIBBLE_MODELS_FAMILIES_LLAMA_H_

#include "absl/status/statusor.h"
#include "models/config_reader.h"
#include "models/families/family.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

absl::StatusOr<FamilyModel> ReadLlama(ConfigReader& json,
                                      const TensorSource& tensors);
absl::StatusOr<FamilyModel> ReadMistral(ConfigReader& json,
                                        const TensorSource& tensors);
absl::StatusOr<FamilyModel> ReadQwen2(ConfigReader& json,
                                      const TensorSource& tensors);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_LLAMA_H_
