// A weight matrix in the form that matrix products read.
//
//   absl::StatusOr<PackedMatrix> w = PackMatrix(view, WeightFormat::kBF16,
//                                               pool);
//   if (!w.ok()) return w.status();
//
//   PackedMatrix mapped = PackedMatrix::View(layout, file_bytes);
//
// tensor/packed_layout.h draws the bytes. One packed form serves every ISA and
// any number of rows of activations.
#ifndef NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_
#define NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

// Weights [outputs, inputs], owned or in memory of someone else. Move-only.
class PackedMatrix {
 public:
  // No matrix: layout().outputs is 0, data() null.
  PackedMatrix() = default;
  PackedMatrix(PackedMatrix&&) = default;
  PackedMatrix& operator=(PackedMatrix&&) = default;

  // A matrix in place. REQUIRES: `data` holds layout.bytes(), is aligned to 64
  // bytes and outlives the matrix.
  static PackedMatrix View(const PackedLayout& layout, const std::byte* data);
  // REQUIRES: memory.size() >= layout.bytes().
  static PackedMatrix Own(const PackedLayout& layout, AlignedBuffer memory);

  const PackedLayout& layout() const { return layout_; }
  WeightFormat format() const { return layout_.format; }
  int64_t outputs() const { return layout_.outputs; }
  int64_t inputs() const { return layout_.inputs; }
  // Bytes held, padding included: what one product reads.
  size_t bytes() const {
    return data_ == nullptr ? 0 : static_cast<size_t>(layout_.bytes());
  }
  const std::byte* data() const { return data_; }

 private:
  PackedLayout layout_;
  AlignedBuffer memory_;  // empty in a view
  const std::byte* data_ = nullptr;
};

// Packs `weights` [outputs, inputs], of any dtype that kernels/convert reads,
// rounding each value to `format` (nearest, ties to even).
// InvalidArgument: `weights` is not a matrix with at least one element, cannot
// be converted, or `format` is not kF32 or kBF16.
absl::StatusOr<PackedMatrix> PackMatrix(const TensorView& weights,
                                        WeightFormat format, ThreadPool& pool);

// values = the weights of one output, exactly (with wide_scales and zero
// points, or with minimums, rounded once). REQUIRES: 0 <= output < w.outputs(),
// values.size() == w.inputs().
void DequantizeRow(const PackedMatrix& w, int64_t output,
                   absl::Span<float> values);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_PACKED_MATRIX_H_
