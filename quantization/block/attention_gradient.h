// The gradient of causal self-attention over whole sequences, from position 0.
//
//   AttentionGradient gradient;
//   gradient.Run(shape, {qkv, d_attended, d_qkv}, pool);
//
// Nothing is kept from the forward pass: the weights are computed again, block
// of queries by block. The products are Gemm's.
#ifndef NIBBLE_QUANTIZATION_BLOCK_ATTENTION_GRADIENT_H_
#define NIBBLE_QUANTIZATION_BLOCK_ATTENTION_GRADIENT_H_

#include <memory>
#include <vector>

#include "kernels/thread_pool.h"
#include "quantization/block/block_shape.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

struct AttentionGradientViews {
  MatrixView<const float> qkv;         // [sequences * length, qkv_dim], rotated
  MatrixView<const float> d_attended;  // [.., q_dim]
  MatrixView<float> d_qkv;             // [.., qkv_dim]; q and k as rotated
};

// Holds the memory of all threads from call to call.
class AttentionGradient {
 public:
  // A sequence and KV head at a time on each of the pool's threads.
  void Run(const BlockShape& shape, const AttentionGradientViews& views,
           ThreadPool& pool);

 private:
  struct Worker {
    ThreadPool alone{1};     // for products inside of a parallel region
    Array<float> weights;    // [queries, length]
    Array<float> d_weights;  // [queries, length]
  };

  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_ATTENTION_GRADIENT_H_
