#include "kernels/convert/convert.h"

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "kernels/convert/convert_table.h"

namespace nibble {
namespace {

ConvertTable::Decode DecodeOf(DType dtype) {
  const int index = static_cast<int>(dtype);
  CHECK_LT(index, kDTypeCount);
  return ActiveConvertTable().decode[index];
}

absl::Status NotConvertible(DType dtype) {
  return absl::UnimplementedError(absl::StrCat(
      "tensors of dtype ", DTypeName(dtype), " cannot be read as f32"));
}

}  // namespace

bool CanConvertToF32(DType dtype) { return DecodeOf(dtype) != nullptr; }

absl::Status ConvertToF32(const TensorView& tensor, absl::Span<float> out) {
  CHECK_EQ(static_cast<int64_t>(out.size()), tensor.shape.elements());
  const ConvertTable::Decode decode = DecodeOf(tensor.dtype);
  if (decode == nullptr) return NotConvertible(tensor.dtype);
  const int64_t blocks =
      tensor.shape.elements() / DTypeBlockElements(tensor.dtype);
  CHECK_EQ(static_cast<int64_t>(tensor.bytes),
           blocks * DTypeBlockBytes(tensor.dtype));
  decode(tensor.data, blocks, out.data());
  return absl::OkStatus();
}

absl::Status ConvertRowToF32(const TensorView& matrix, int64_t row,
                             absl::Span<float> out) {
  CHECK_EQ(matrix.shape.rank(), 2);
  CHECK(row >= 0 && row < matrix.shape.dim(0));
  const int64_t columns = matrix.shape.dim(1);
  CHECK_EQ(static_cast<int64_t>(out.size()), columns);
  const ConvertTable::Decode decode = DecodeOf(matrix.dtype);
  if (decode == nullptr) return NotConvertible(matrix.dtype);
  const int64_t blocks = columns / DTypeBlockElements(matrix.dtype);
  const int64_t row_bytes = blocks * DTypeBlockBytes(matrix.dtype);
  DCHECK_EQ(static_cast<int64_t>(matrix.bytes),
            matrix.shape.dim(0) * row_bytes);
  decode(matrix.data + row * row_bytes, blocks, out.data());
  return absl::OkStatus();
}

bool AllFinite(absl::Span<const float> values) {
  return ActiveConvertTable().all_finite(values.data(), values.size());
}

void F32ToBF16(absl::Span<const float> in, absl::Span<BF16> out) {
  CHECK_EQ(in.size(), out.size());
  ActiveConvertTable().f32_to_bf16(in.data(), in.size(), out.data());
}

void F32ToF16(absl::Span<const float> in, absl::Span<F16> out) {
  CHECK_EQ(in.size(), out.size());
  ActiveConvertTable().f32_to_f16(in.data(), in.size(), out.data());
}

void BF16ToF32(absl::Span<const BF16> in, absl::Span<float> out) {
  CHECK_EQ(in.size(), out.size());
  DecodeOf(DType::kBF16)(reinterpret_cast<const std::byte*>(in.data()),
                         in.size(), out.data());
}

void F16ToF32(absl::Span<const F16> in, absl::Span<float> out) {
  CHECK_EQ(in.size(), out.size());
  DecodeOf(DType::kF16)(reinterpret_cast<const std::byte*>(in.data()),
                        in.size(), out.data());
}

}  // namespace nibble
