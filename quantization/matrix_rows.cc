#include "quantization/matrix_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "models/checkpoint.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
namespace {

int64_t RowBytes(const TensorView& view) {
  return static_cast<int64_t>(view.bytes) / view.shape.dim(0);
}

}  // namespace

absl::StatusOr<MatrixRows> MatrixRows::Find(const TensorSource& tensors,
                                            absl::Span<const RowRange> ranges) {
  MatrixRows result(tensors);
  for (const RowRange& range : ranges) {
    const absl::StatusOr<TensorView> view = tensors.Find(range.tensor);
    if (!view.ok()) return view.status();
    CHECK_EQ(view->shape.rank(), 2);
    result.rows_ += range.rows;
    result.inputs_ = view->shape.dim(1);
    result.stored_bytes_ += range.rows * RowBytes(*view);
    result.parts_.push_back(
        {result.rows_, range.rows, range.first_row, range.tensor, *view});
  }
  return result;
}

const MatrixRows::Part& MatrixRows::PartOf(int64_t row) const {
  DCHECK(row >= 0 && row < rows_);
  return *std::upper_bound(
      parts_.begin(), parts_.end(), row,
      [](int64_t wanted, const Part& part) { return wanted < part.end; });
}

absl::Status MatrixRows::Read(int64_t row, absl::Span<float> values) const {
  const Part& part = PartOf(row);
  return ConvertRowToF32(part.view, part.first_row + row - part.end + part.rows,
                         values);
}

absl::Status MatrixRows::Error(int64_t row, const absl::Status& status) const {
  return absl::Status(status.code(),
                      absl::StrCat(tensors_->path(), ": tensor ",
                                   PartOf(row).tensor, ": ", status.message()));
}

void MatrixRows::Release(int64_t first, int64_t count) const {
  const int64_t end = first + count;
  for (const Part& part : parts_) {
    const int64_t begin = part.end - part.rows;
    const int64_t from = std::max(first, begin);
    const int64_t to = std::min(end, part.end);
    if (from >= to) continue;
    const int64_t row_bytes = RowBytes(part.view);
    tensors_->Release(absl::MakeConstSpan(
        part.view.data + (part.first_row + from - begin) * row_bytes,
        static_cast<size_t>((to - from) * row_bytes)));
  }
}

}  // namespace nibble
