// Falcon as Hugging Face stores it, in all its forms:
//
//              norms per layer      residual    kv heads  position  biases
//   7B         input                parallel    1         rotary    none
//   40B, 180B  ln_attn, ln_mlp      parallel    some      rotary    none
//   11B        input                parallel    some      rotary    none
//   rw         input, post_attention sequential all       ALiBi     all
//
// q, k and v are one tensor, in groups of a kv head and its queries
// (tensor_names.h).
//
// `model_type` in config.json is "falcon" or, in the first checkpoints,
// "RefinedWebModel" (7B, rw) and "RefinedWeb" (40B), with n_head, n_head_kv and
// n_layer for the sizes and without new_decoder_architecture: the tensors then
// tell whether there are two norms.
#ifndef NIBBLE_MODELS_FAMILIES_FALCON_H_
#define NIBBLE_MODELS_FAMILIES_FALCON_H_

#include "absl/status/statusor.h"
#include "models/config_reader.h"
#include "models/families/family.h"
#include "tensor/io/tensor_source.h"

namespace nibble {

absl::StatusOr<FamilyModel> ReadFalcon(ConfigReader& json,
                                       const TensorSource& tensors);
// The two early forms.
absl::StatusOr<FamilyModel> ReadRefinedWeb(ConfigReader& json,
                                           const TensorSource& tensors);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_FALCON_H_
