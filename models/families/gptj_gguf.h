// GPT-J as GGUF. The format reserves the architecture "gptj" and lists its
// tensors, but no other program builds a graph for it, so that the mapping is
// this project's own:
//
//   gptj.context_length, .embedding_length, .block_count, .feed_forward_length,
//   .attention.head_count, .attention.layer_norm_epsilon (absent: 1e-5),
//   .rope.dimension_count (absent: the whole head), .activation (absent:
//   gelu_new)
//
//   token_embd.weight                   transformer.wte
//   blk.N.attn_norm.{weight,bias}       transformer.h.N.ln_1
//   blk.N.attn_{q,k,v,output}.weight    transformer.h.N.attn.*_proj
//   blk.N.ffn_{up,down}.{weight,bias}   transformer.h.N.mlp.fc_{in,out}
//   output_norm.{weight,bias}           transformer.ln_f
//   output.{weight,bias}                lm_head; without the weight: tied
//
// Rows are in the order of the original, whose rotary pairs are neighbours.
#ifndef NIBBLE_MODELS_FAMILIES_GPTJ_GGUF_H_
#define NIBBLE_MODELS_FAMILIES_GPTJ_GGUF_H_

#include "absl/status/statusor.h"
#include "models/families/family.h"
#include "tensor/io/gguf.h"

namespace nibble {

// REQUIRES: general.architecture is "gptj".
absl::StatusOr<FamilyModel> ReadGptJGguf(const GgufFile& file);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FAMILIES_GPTJ_GGUF_H_
