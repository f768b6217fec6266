// One decoder block as a function of plain float weights, forward and backward,
// for every family that DecoderConfig describes: what the calibrated methods
// measure and train.
//
//   Block<float> block(config, /*layer=*/3, /*length=*/512,
//                      GemmPrecision::kBF16);
//   block.SetWeights(weights, /*gradients=*/true, pool);
//   block.Forward(x, acts, pool);               // x: [8 * 512, hidden]
//   Use(acts.input(LinearId::kDown), acts.output());
//   BlockGradients<float> gradients;            // of the four matrices
//   block.Backward(x, acts, dy, gradients, pool);
//   Use(gradients[LinearId::kDown].weight);     // [hidden, ffn]
//
// Rows are whole sequences of `length` tokens one below the other, at positions
// 0 to length - 1. T is float, on the kernels of MatMul and Gemm, or double:
// the formulas as plain loops on one thread, which tests compare with. The bits
// of a result depend neither on the number of threads nor, for outputs, on the
// sequences that share a call.
#ifndef NIBBLE_QUANTIZATION_BLOCK_BLOCK_H_
#define NIBBLE_QUANTIZATION_BLOCK_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_steps.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/grow_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// What Forward leaves behind. Memory is kept from call to call and grows.
template <class T>
class BlockActivations {
 public:
  // What a linear multiplies: [tokens, inputs]. Valid once Forward got there.
  MatrixView<const T> input(LinearId id) const {
    switch (id) {
      case LinearId::kQkv:
        return normed_.view();
      case LinearId::kAttention:
        return attended_.view();
      case LinearId::kUp:
        return shared_norm_ ? normed_.view() : mlp_normed_.view();
      case LinearId::kDown:
        break;
    }
    return inner_.view();
  }
  MatrixView<const T> output() const { return output_.view(); }  // [.., hidden]

 private:
  template <class U>
  friend class Block;

  bool shared_norm_ = false;
  GrowMatrix<T> normed_;      // [tokens, hidden]
  GrowMatrix<T> qkv_;         // [tokens, qkv_dim], q and k rotated
  GrowMatrix<T> attended_;    // [tokens, q_dim]
  GrowMatrix<T> mid_;         // [tokens, hidden]: x + attention, for gradients
  GrowMatrix<T> mlp_normed_;  // [tokens, hidden]
  GrowMatrix<T> up_;          // [tokens, up's outputs], for gradients
  GrowMatrix<T> inner_;       // [tokens, ffn]
  GrowMatrix<T> output_;      // [tokens, hidden]
};

// What Backward is to compute, and what it has computed.
template <class T>
struct BlockGradients {
  // In the order of LinearId. Nothing below the first wanted part is computed.
  std::array<bool, kLinearCount> want_weights = {true, true, true, true};
  bool want_biases = false;  // where the block has them
  bool want_norms = false;
  bool want_x = false;
  // Adds to what an earlier call has left, so that a batch may be taken in
  // parts. `x` is never added to.
  bool accumulate = false;

  std::array<BlockLinear<T>, kLinearCount> linears;
  BlockNorm<T> attention_norm;
  BlockNorm<T> mlp_norm;
  GrowMatrix<T> x;  // [tokens, hidden]

  BlockLinear<T>& operator[](LinearId id) {
    return linears[static_cast<size_t>(id)];
  }
  const BlockLinear<T>& operator[](LinearId id) const {
    return linears[static_cast<size_t>(id)];
  }
};

template <class T>
class Block {
 public:
  // kBF16 rounds the factors of matrix products (and, backward, of attention's)
  // to bf16; all else is f32. double ignores it.
  // REQUIRES: 0 <= layer < config.layers, length >= 1.
  Block(const DecoderConfig& config, int64_t layer, int64_t length,
        GemmPrecision precision);

  // Copies the matrices and borrows norms and biases, which are read at each
  // call: `weights` must outlive the calls. `gradients`: Backward may be
  // called, and Forward keeps what it needs; without it Forward saves the
  // passes over the up projection's result.
  // REQUIRES: sizes as the configuration has them.
  void SetWeights(const BlockWeights<T>& weights, bool gradients,
                  ThreadPool& pool);
  // Replaces one matrix. REQUIRES: SetWeights was called.
  void SetLinear(LinearId id, MatrixView<const T> weight, ThreadPool& pool);

  // x: [sequences * length, hidden]. With `until`, stops once the inputs of all
  // linears up to that one are there.
  void Forward(MatrixView<const T> x, BlockActivations<T>& acts,
               ThreadPool& pool, std::optional<LinearId> until = {});

  // dy = dLoss/dOutput, [tokens, hidden]. REQUIRES: SetWeights with
  // `gradients`; `x` and `acts` are those of a whole Forward.
  void Backward(MatrixView<const T> x, const BlockActivations<T>& acts,
                MatrixView<const T> dy, BlockGradients<T>& gradients,
                ThreadPool& pool);

  const DecoderConfig& config() const { return shape_.config; }

 private:
  void AddAttention(const BlockActivations<T>& acts, MatrixView<const T> base,
                    MatrixView<T> sum, ThreadPool& pool);
  void LinearGradient(LinearId id, MatrixView<const T> dy,
                      MatrixView<const T> input, BlockGradients<T>& gradients,
                      ThreadPool& pool);
  void NormGradient(const BlockNorm<T>& norm, MatrixView<const T> x,
                    MatrixView<const T> dy, BlockGradients<T>& gradients,
                    BlockNorm<T>& out, ThreadPool& pool);
  absl::Span<const T> bias(LinearId id) const {
    return (*weights_)[id].bias.span();
  }

  const BlockShape shape_;
  const std::unique_ptr<BlockSteps<T>> steps_;
  const BlockWeights<T>* weights_ = nullptr;
  bool gradients_ = false;
  // Gradients by the intermediates of the same name.
  GrowMatrix<T> d_inner_;
  GrowMatrix<T> d_up_;
  GrowMatrix<T> d_mid_;
  GrowMatrix<T> d_attended_;
  GrowMatrix<T> d_qkv_;
  GrowMatrix<T> d_normed_;
};

extern template class Block<float>;
extern template class Block<double>;

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_BLOCK_H_
