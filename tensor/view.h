// Views of memory that someone else owns.
//
//   TensorView weight = *source.Find("model.norm.weight");
//   for (float w : weight.As<float>()) ...           // CHECKs the dtype
//
//   MatrixView<float> rows(buffer.data(), tokens, hidden);
//   float* first = rows.row(0);                      // [hidden]
//
// A TensorView is dense and of any dtype; a MatrixView is a row-major matrix of
// one C++ type whose rows may lie further apart than they are long.
#ifndef NIBBLE_TENSOR_VIEW_H_
#define NIBBLE_TENSOR_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {

// DTypeOf<T>::value is the dtype whose data As<T>() may read. The block types
// are in tensor/block_format.h.
template <class T>
struct DTypeOf;

template <DType kDType>
struct DTypeConstant {
  static constexpr DType value = kDType;
};

// clang-format off
template <> struct DTypeOf<float> : DTypeConstant<DType::kF32> {};
template <> struct DTypeOf<F16> : DTypeConstant<DType::kF16> {};
template <> struct DTypeOf<BF16> : DTypeConstant<DType::kBF16> {};
template <> struct DTypeOf<double> : DTypeConstant<DType::kF64> {};
template <> struct DTypeOf<int8_t> : DTypeConstant<DType::kI8> {};
template <> struct DTypeOf<uint8_t> : DTypeConstant<DType::kU8> {};
template <> struct DTypeOf<int16_t> : DTypeConstant<DType::kI16> {};
template <> struct DTypeOf<int32_t> : DTypeConstant<DType::kI32> {};
template <> struct DTypeOf<int64_t> : DTypeConstant<DType::kI64> {};
// clang-format on

// Bytes that a dense tensor takes. InvalidArgument when the last dimension is
// not a multiple of the dtype's block, when a quantized tensor is a scalar, or
// when the count does not fit int64_t.
absl::StatusOr<int64_t> TensorBytes(DType dtype, const Shape& shape);

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  // Aligned to DTypeAlignment(dtype). Dense, row-major, last dimension
  // innermost.
  const std::byte* data = nullptr;
  size_t bytes = 0;  // TensorBytes(dtype, shape)

  // The data as elements, or as blocks of a quantized type.
  // REQUIRES: dtype == DTypeOf<T>::value.
  template <class T>
  absl::Span<const T> As() const {
    CHECK(dtype == DTypeOf<T>::value)
        << "tensor of dtype " << DTypeName(dtype) << " read as "
        << DTypeName(DTypeOf<T>::value);
    return absl::MakeConstSpan(reinterpret_cast<const T*>(data),
                               bytes / sizeof(T));
  }
};

// A view of `values` as a tensor. REQUIRES: values.size() == shape.elements().
template <class T>
TensorView MakeTensorView(absl::Span<const T> values, const Shape& shape) {
  CHECK_EQ(static_cast<int64_t>(values.size()), shape.elements());
  return TensorView{DTypeOf<T>::value, shape,
                    reinterpret_cast<const std::byte*>(values.data()),
                    values.size() * sizeof(T)};
}

// A row-major matrix: element (i, j) is data[i * stride + j].
template <class T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // Elements between the starts of neighbouring rows.

  MatrixView() = default;
  MatrixView(T* data, int64_t rows, int64_t cols)
      : MatrixView(data, rows, cols, cols) {}
  MatrixView(T* data, int64_t rows, int64_t cols, int64_t stride)
      : data(data), rows(rows), cols(cols), stride(stride) {
    DCHECK_GE(rows, 0);
    DCHECK_GE(cols, 0);
    DCHECK(stride >= cols || rows <= 1);
  }

  // A mutable view reads as a const one.
  template <class U, class = std::enable_if_t<std::is_same_v<const U, T> &&
                                              !std::is_same_v<U, T>>>
  MatrixView(const MatrixView<U>& other)  // NOLINT: implicit by intent
      : MatrixView(other.data, other.rows, other.cols, other.stride) {}

  // The start of row i. REQUIRES: 0 <= i < rows.
  T* row(int64_t i) const {
    DCHECK(i >= 0 && i < rows);
    return data + i * stride;
  }

  absl::Span<T> row_span(int64_t i) const {
    return absl::MakeSpan(row(i), static_cast<size_t>(cols));
  }

  // Rows [first, first + count). REQUIRES: they are within the matrix.
  MatrixView Rows(int64_t first, int64_t count) const {
    DCHECK(first >= 0 && count >= 0 && count <= rows - first);
    return MatrixView(data + first * stride, count, cols, stride);
  }

  // Columns [first, first + count). REQUIRES: they are within the matrix.
  MatrixView Columns(int64_t first, int64_t count) const {
    DCHECK(first >= 0 && count >= 0 && count <= cols - first);
    return MatrixView(data + first, rows, count, stride);
  }
};

}  // namespace nibble

#endif  // NIBBLE_TENSOR_VIEW_H_
