// GPT-NeoX and Pythia as GGUF, architecture "gptneox", by llama.cpp's
// conventions: blk.N.attn_qkv holds all q, all k, all v, no longer interleaved
// by head; attn_norm feeds attention and ffn_norm the MLP; rows are not
// permuted, so rotary embedding is in halves.
//
// gptneox.use_parallel_residual says how the two are added (absent: in
// parallel). llama.cpp writes no rotary base; gptneox.rope.freq_base is read
// where it is. Biases are there where their tensors are.
#ifndef NIBBLE_MODELS_FAMILIES_GPT_NEOX_GGUF_H_
#define NIBBLE_MODELS_FAMILIES_GPT_NEOX_GGUF_H_

#include "absl/status/statusor.h"
#include "models/families/family.h"
#include "tensor/io/gguf.h"

namespace nibble {

// REQUIRES: general.architecture is "gptneox".
absl::StatusOr<FamilyModel> ReadGptNeoXGguf(const GgufFile& file);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GPT_NEOX_GGUF_H_
