// What attention is asked: queries over a cache, and how to weigh its keys.
// attention.h has the formula and an example.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_SEQUENCE_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_SEQUENCE_H_

#include <cstdint>

#include "kernels/attention/kv_view.h"
#include "tensor/view.h"

namespace nibble {

struct AttentionParams {
  int64_t heads = 0;  // query heads; a multiple of kv.kv_heads
  float scale = 1.0f;
  bool causal = true;
  int64_t window = 0;                   // keys seen, own included; 0: all
  const float* alibi_slopes = nullptr;  // [heads], or none; see alibi.h
};

// Consecutive queries of one sequence, at positions first_position...
struct AttentionSequence {
  MatrixView<const float> q;  // [tokens, heads * head_dim], any stride
  MatrixView<float> out;      // [tokens, heads * head_dim], any stride
  int64_t first_position = 0;
  int64_t kv_length = 0;  // tokens stored in `kv`
  KvView kv;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_SEQUENCE_H_
