// Falcon as GGUF, architecture "falcon", by llama.cpp's conventions:
// blk.N.attn_qkv holds all q, all k, all v, no longer grouped by kv head.
// attn_norm is the norm of both branches (7B, 11B) or, where there is an
// attn_norm_2 as well, that of the MLP, and attn_norm_2 that of attention (40B,
// 180B). Rotary embedding is in halves.
//
// The architecture has no ALiBi and no biases: falcon-rw has no GGUF form.
#ifndef NIBBLE_MODELS_FAMILIES_FALCON_GGUF_H_
#define NIBBLE_MODELS_FAMILIES_FALCON_GGUF_H_

#include "absl/status/statusor.h"
#include "models/families/family.h"
#include "tensor/io/gguf.h"

namespace nibble {

// REQUIRES: general.architecture is "falcon".
absl::StatusOr<FamilyModel> ReadFalconGguf(const GgufFile& file);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_FALCON_GGUF_H_
