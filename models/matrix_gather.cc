#include "models/matrix_gather.h"

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "kernels/convert/convert.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

// Halfway from bf16's largest value to the next power of two: from here on
// rounding to nearest gives infinity.
constexpr float kBF16Overflow = 0x1.FFp127f;

bool RoundsToFiniteBF16(absl::Span<const float> values) {
  return absl::c_all_of(
      values, [](float value) { return std::abs(value) < kBF16Overflow; });
}

absl::Status NotFinite() {
  return absl::InvalidArgumentError(
      "holds a value that is not a finite number; the file is damaged");
}

// Writes the rows as `dtype`, which is theirs or kF32; returns what follows.
absl::StatusOr<std::byte*> AppendRows(const TensorView& view,
                                      const RowRange& range, DType dtype,
                                      std::byte* out) {
  if (view.dtype == dtype) {
    const size_t row_bytes =
        view.bytes / static_cast<size_t>(view.shape.dim(0));
    const size_t bytes = row_bytes * static_cast<size_t>(range.rows);
    std::memcpy(out,
                view.data + row_bytes * static_cast<size_t>(range.first_row),
                bytes);
    return out + bytes;
  }
  const size_t inputs = static_cast<size_t>(view.shape.dim(1));
  float* values = reinterpret_cast<float*>(out);
  for (int64_t row = 0; row < range.rows; ++row) {
    const absl::Status converted = ConvertRowToF32(
        view, range.first_row + row, absl::MakeSpan(values, inputs));
    if (!converted.ok()) return converted;
    values += inputs;
  }
  return reinterpret_cast<std::byte*>(values);
}

}  // namespace

absl::Status MatrixGather::Error(const std::string& tensor,
                                 const absl::Status& status) const {
  return absl::Status(status.code(),
                      absl::StrCat(tensors_.path(), ": tensor ", tensor, ": ",
                                   status.message()));
}

absl::StatusOr<TensorView> MatrixGather::Stored(const std::string& name) {
  const absl::StatusOr<TensorView> view = tensors_.Find(name);
  if (!view.ok() || checked_.contains(name)) return view;
  // Of what files hold, only f32 reaches beyond bf16's largest value.
  const bool may_round_up =
      range_ == Range::kBF16 && view->dtype == DType::kF32;
  std::atomic<bool> finite(true);
  std::atomic<bool> in_range(true);
  pool_.ParallelFor(view->shape.dim(0), [&](int64_t begin, int64_t end, int) {
    Array<float> values(static_cast<size_t>(view->shape.dim(1)));
    for (int64_t row = begin; row < end; ++row) {
      const bool good = ConvertRowToF32(*view, row, values.span()).ok() &&
                        AllFinite(values.span());
      if (!good) finite.store(false, std::memory_order_relaxed);
      if (may_round_up && !RoundsToFiniteBF16(values.span())) {
        in_range.store(false, std::memory_order_relaxed);
      }
    }
  });
  if (!finite.load()) return Error(name, NotFinite());
  if (!in_range.load()) {
    return Error(name, absl::OutOfRangeError("holds a value beyond bf16's "
                                             "range; hold the weights in f32"));
  }
  checked_.insert(name);
  return view;
}

absl::StatusOr<GatheredMatrix> MatrixGather::Matrix(
    absl::Span<const RowRange> rows) {
  std::vector<TensorView> views;
  int64_t outputs = 0;
  bool same_dtype = true;
  for (const RowRange& range : rows) {
    absl::StatusOr<TensorView> view = Stored(range.tensor);
    if (!view.ok()) return view.status();
    views.push_back(*view);
    outputs += range.rows;
    same_dtype &= view->dtype == views[0].dtype;
  }
  GatheredMatrix result;
  if (rows.size() == 1 && outputs == views[0].shape.dim(0)) {
    result.view = views[0];
    return result;
  }
  const DType dtype = same_dtype ? views[0].dtype : DType::kF32;
  const Shape shape = {outputs, views[0].shape.dim(1)};
  const absl::StatusOr<int64_t> bytes = TensorBytes(dtype, shape);
  if (!bytes.ok()) return Error(rows[0].tensor, bytes.status());
  result.memory = AlignedBuffer(static_cast<size_t>(*bytes));
  result.view = TensorView{dtype, shape, result.memory.data(),
                           static_cast<size_t>(*bytes)};
  std::byte* next = result.memory.data();
  for (size_t i = 0; i < rows.size(); ++i) {
    const absl::StatusOr<std::byte*> end =
        AppendRows(views[i], rows[i], dtype, next);
    if (!end.ok()) return Error(rows[i].tensor, end.status());
    next = *end;
  }
  return result;
}

absl::StatusOr<Array<float>> MatrixGather::Vector(const std::string& name) {
  if (name.empty()) return Array<float>();
  const absl::StatusOr<TensorView> view = tensors_.Find(name);
  if (!view.ok()) return view.status();
  Array<float> values(static_cast<size_t>(view->shape.elements()));
  const absl::Status converted = ConvertToF32(*view, values.span());
  if (!converted.ok()) return Error(name, converted);
  if (!AllFinite(values.span())) return Error(name, NotFinite());
  return values;
}

absl::StatusOr<Array<float>> MatrixGather::Bias(
    absl::Span<const RowRange> elements) {
  int64_t outputs = 0;
  for (const RowRange& range : elements) outputs += range.rows;
  Array<float> bias(static_cast<size_t>(outputs));
  float* next = bias.data();
  for (const RowRange& range : elements) {
    const absl::StatusOr<Array<float>> stored = Vector(range.tensor);
    if (!stored.ok()) return stored.status();
    std::memcpy(next, stored->data() + range.first_row,
                static_cast<size_t>(range.rows) * sizeof(float));
    next += range.rows;
  }
  return bias;
}

}  // namespace nibble
