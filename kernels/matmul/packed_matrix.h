// A weight matrix in the form that matrix products read.
//
//   absl::StatusOr<PackedMatrix> w = PackMatrix(view, DType::kBF16, pool);
//   if (!w.ok()) return w.status();
//
// Tiles of 16 outputs whose bytes are read front to back; docs/kernels.md and
// packed_layout.h draw them. One packed form serves every ISA and any number of
// rows of activations.
#ifndef NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_
#define NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

// Weights [outputs, inputs]. Move-only.
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

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_
