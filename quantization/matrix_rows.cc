#include "quantization/matrix_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "models/checkpoint.h"
#include "models/coded_values.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"

namespace nibble {
absl::StatusOr<MatrixRows> MatrixRows::Find(const TensorSource& tensors,
                                            absl::Span<const RowRange> ranges) {
  MatrixRows result(tensors);
  for (const RowRange& range : ranges) {
    Part part;
    part.rows = range.rows;
    part.first_row = range.first_row;
    part.tensor = range.tensor;
    const absl::StatusOr<TensorView> view = tensors.Find(range.tensor);
    if (view.ok()) {
      CHECK_EQ(view->shape.rank(), 2);
      part.view = *view;
      part.row_bytes = static_cast<int64_t>(view->bytes) / view->shape.dim(0);
      result.inputs_ = view->shape.dim(1);
    } else if (part.codes = tensors.FindCoded(range.tensor);
               part.codes != nullptr) {
      part.row_bytes = part.codes->stored_bytes() / part.codes->form().outputs;
      result.inputs_ = part.codes->form().inputs;
    } else {
      return view.status();
    }
    result.rows_ += range.rows;
    result.stored_bytes_ += range.rows * part.row_bytes;
    part.end = result.rows_;
    result.parts_.push_back(std::move(part));
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
  const int64_t stored = part.first_row + row - part.end + part.rows;
  if (part.codes == nullptr) return ConvertRowToF32(part.view, stored, values);
  CodedReader(*part.codes).Read(stored, 1, values);
  return absl::OkStatus();
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
    if (part.codes != nullptr) {
      // Rows of some formats share their bytes.
      if (to == part.end) part.codes->Release();
      continue;
    }
    tensors_->Release(absl::MakeConstSpan(
        part.view.data + (part.first_row + from - begin) * part.row_bytes,
        static_cast<size_t>((to - from) * part.row_bytes)));
  }
}

}  // namespace nibble
