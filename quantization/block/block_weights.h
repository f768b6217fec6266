// One decoder block as plain numbers: what the calibrated methods work on.
//
// Matrices are those of models/decoder_weights.h before packing: fused where
// they read the same input. Methods may change values in place (folding) as
// long as the block computes the same function.
#ifndef NIBBLE_QUANTIZATION_BLOCK_BLOCK_WEIGHTS_H_
#define NIBBLE_QUANTIZATION_BLOCK_BLOCK_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// In the order in which a block computes them.
enum class LinearId {
  kQkv,        // [q_dim + 2 * kv_dim, hidden]: all q, all k, all v
  kAttention,  // [hidden, q_dim]
  kUp,         // [2 * ffn, hidden]: gate, up; plain: [ffn, hidden]
  kDown,       // [hidden, ffn]
};
inline constexpr std::array<LinearId, 4> kAllLinears = {
    LinearId::kQkv, LinearId::kAttention, LinearId::kUp, LinearId::kDown};
inline constexpr size_t kLinearCount = kAllLinears.size();

template <class T>
struct BlockLinear {
  int64_t outputs = 0;
  int64_t inputs = 0;
  Array<T> weight;  // [outputs, inputs]
  Array<T> bias;    // [outputs] or empty

  MatrixView<T> view() { return MatrixView<T>(weight.data(), outputs, inputs); }
  MatrixView<const T> view() const {
    return MatrixView<const T>(weight.data(), outputs, inputs);
  }
};

template <class T>
struct BlockNorm {
  Array<T> weight;  // [hidden]
  Array<T> bias;    // [hidden] or empty
};

template <class T>
struct BlockWeights {
  BlockNorm<T> attention_norm;
  BlockNorm<T> mlp_norm;  // empty under NormLayout::kShared
  std::array<BlockLinear<T>, kLinearCount> linears;

  BlockLinear<T>& operator[](LinearId id) {
    return linears[static_cast<size_t>(id)];
  }
  const BlockLinear<T>& operator[](LinearId id) const {
    return linears[static_cast<size_t>(id)];
  }
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_BLOCK_WEIGHTS_H_
