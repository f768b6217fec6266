// Products of activations with a weight matrix: y = x * W^T + bias.
//
//   absl::StatusOr<PackedMatrix> w = PackMatrix(view, DType::kBF16, pool);
//   if (!w.ok()) return w.status();
//   MatMul(x, *w, {.bias = bias}, y, pool);   // y: [rows, w->outputs()]
//
// Weights are packed once, into tiles of 16 outputs whose bytes are read front
// to back (the layout is drawn in docs/kernels.md and matmul/packed_layout.h).
// One packed form serves every ISA and any number of rows.
//
// Accuracy: each output is summed in f32 with one fixed order, which the ISA
// decides and nothing else does: the same bits for any number of rows, any
// position of the row among them, any number of threads. Blocks of
// kSumBlockBytes of a tile are summed apart and then added up, so the error of
// an output is at most gamma(block + blocks) * sum_k |x[k] w[k]|, where gamma(n)
// = n u / (1 - n u), u = 2^-24.
#ifndef NIBBLE_KERNELS_MATMUL_MATMUL_H_
#define NIBBLE_KERNELS_MATMUL_MATMUL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

// A weight matrix [outputs, inputs], packed. Move-only.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(PackedMatrix&&) = default;
  PackedMatrix& operator=(PackedMatrix&&) = default;

  DType dtype() const { return dtype_; }  // kF32 or kBF16
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  // Bytes held, padding included: what one product reads.
  size_t bytes() const { return buffer_.size(); }
  const std::byte* data() const { return buffer_.data(); }

 private:
  friend absl::StatusOr<PackedMatrix> PackMatrix(const TensorView& weights,
                                                 DType dtype, ThreadPool& pool);

  DType dtype_ = DType::kF32;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
  AlignedBuffer buffer_;
};

// Packs `weights` [outputs, inputs], of any dtype that kernels/convert reads,
// rounding each value to `dtype` (nearest, ties to even).
// InvalidArgument: `weights` is not a matrix with at least one element, cannot
// be converted, or `dtype` is not kF32 or kBF16.
absl::StatusOr<PackedMatrix> PackMatrix(const TensorView& weights, DType dtype,
                                        ThreadPool& pool);

// What the products are computed in. kBF16 rounds each activation to bf16 once
// (products and sums stay f32); with bf16 weights this doubles the speed of
// many rows where the processor has AVX512_BF16. With f32 weights it is an
// error of the caller.
enum class Activations { kF32, kBF16 };

struct MatMulOptions {
  const float* bias = nullptr;  // [outputs], or none
  bool accumulate = false;      // y += product + bias
  Activations activations = Activations::kF32;
};

// y[m, n] = sum_k x[m, k] * w[n, k] + bias[n], plus the old y[m, n] if
// `accumulate`. Infinities and NaNs propagate as IEEE 754 says.
// x: [rows, inputs], y: [rows, outputs], both with any stride.
// REQUIRES: rows >= 1; x and y do not overlap; activations kBF16 only with bf16
// weights.
void MatMul(MatrixView<const float> x, const PackedMatrix& w,
            const MatMulOptions& options, MatrixView<float> y,
            ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_MATMUL_H_
