#include "quantization/export/gptq_rows.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/convert/convert.h"
#include "models/checkpoint.h"
#include "tensor/bf16.h"
#include "tensor/view.h"

namespace nibble {
namespace {

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

template <class T>
absl::Span<T> Part(std::vector<T>& values, int64_t index, int64_t size) {
  return absl::MakeSpan(values).subspan(static_cast<size_t>(index * size),
                                        static_cast<size_t>(size));
}

}  // namespace

// Of some rows, as GptqMatrix takes them.
struct GptqRows::Buffers {
  Buffers(const GptqForm& form, int64_t rows)
      : codes(static_cast<size_t>(rows * form.inputs)),
        scales(static_cast<size_t>(rows * form.groups())),
        zeros(scales.size()),
        row(static_cast<size_t>(form.inputs)) {}

  std::vector<uint8_t> codes;  // [rows, inputs]
  std::vector<float> scales;   // [rows, groups]
  std::vector<uint8_t> zeros;  // [rows, groups]
  std::vector<float> row;      // [inputs]
};

absl::Status GptqRows::Error(const absl::Status& status) const {
  return absl::Status(status.code(),
                      absl::StrCat(tensors_->path(), ": tensor ", name_, " ",
                                   status.message()));
}

absl::StatusOr<GptqRows> GptqRows::Rounded(const TensorSource& tensors,
                                           const std::string& name,
                                           const RoundingOptions& rounding) {
  GptqRows rows(tensors, name);
  if (tensors.FindCoded(name) != nullptr) {
    return rows.Error(
        Invalid("is quantized already; --method=keep keeps its codes"));
  }
  const absl::StatusOr<TensorView> view = tensors.Find(name);
  if (!view.ok()) return view.status();
  const int64_t outputs = view->shape.dim(0);
  absl::StatusOr<MatrixRows> floats =
      MatrixRows::Find(tensors, {{name, 0, outputs}});
  if (!floats.ok()) return floats.status();
  const absl::StatusOr<PackedLayout> layout =
      RoundedLayout(rounding, outputs, floats->inputs());
  if (!layout.ok()) return rows.Error(layout.status());
  rows.floats_ = *std::move(floats);
  rows.layout_ = *layout;
  rows.form_.outputs = outputs;
  rows.form_.inputs = layout->inputs;
  rows.form_.bits = rounding.bits;
  rows.form_.group_size = layout->group_size;
  const absl::Status status = CheckGptqForm(rows.form_);
  if (!status.ok()) return rows.Error(status);
  return rows;
}

absl::StatusOr<GptqRows> GptqRows::Kept(const TensorSource& tensors,
                                        const std::string& name) {
  GptqRows rows(tensors, name);
  rows.codes_ = tensors.FindCoded(name);
  if (rows.codes_ == nullptr) {
    return rows.Error(
        Invalid("is not quantized: there are no codes to keep; GPTQ's settings "
                "cannot leave single matrices as floats"));
  }
  const CodedForm& form = rows.codes_->form();
  if (form.offset == CodeOffset::kMinimums) {
    return rows.Error(
        Invalid("has minimums instead of zero points, which GPTQ cannot say"));
  }
  if (form.bits != 2 && form.bits != 4 && form.bits != 8) {
    return rows.Error(Invalid(absl::StrCat(
        "has codes of ", form.bits, " bits; 2, 4 and 8 can be written")));
  }
  rows.form_.outputs = form.outputs;
  rows.form_.inputs = form.inputs;
  rows.form_.bits = form.bits;
  rows.form_.group_size = form.group_size;
  const absl::Status status = CheckGptqForm(rows.form_);
  if (!status.ok()) return rows.Error(status);
  return rows;
}

bool GptqRows::symmetric() const {
  return codes_ != nullptr ? codes_->form().offset == CodeOffset::kSymmetric
                           : !layout_.has_zeros();
}

absl::Span<const int32_t> GptqRows::input_order() const {
  return codes_ != nullptr ? codes_->form().input_order
                           : absl::Span<const int32_t>();
}

int64_t GptqRows::stored_bytes() const {
  return codes_ != nullptr ? codes_->stored_bytes() : floats_->stored_bytes();
}

absl::StatusOr<RoundingLoss> GptqRows::Round(int64_t row, Buffers* buffers,
                                             int64_t at) const {
  absl::Status status = floats_->Read(row, absl::MakeSpan(buffers->row));
  if (!status.ok()) return floats_->Error(row, status);
  if (!SurveyRow(buffers->row, layout_).in_range) {
    return Error(
        Invalid("holds a weight that is not a finite number, or too "
                "large to be rounded"));
  }
  const int64_t groups = form_.groups();
  const absl::Span<uint8_t> zeros = Part(buffers->zeros, at, groups);
  const absl::Span<float> scales = Part(buffers->scales, at, groups);
  const RoundingLoss loss =
      RoundRow(buffers->row, layout_,
               {Part(buffers->codes, at, form_.inputs), scales,
                layout_.has_zeros() ? zeros : absl::Span<uint8_t>()});
  if (!layout_.has_zeros()) {
    std::fill(zeros.begin(), zeros.end(),
              static_cast<uint8_t>(layout_.symmetric_zero()));
  }
  if (!AllFinite(scales)) {
    return Error(
        Invalid("needs scales beyond f16's range, which is all that "
                "GPTQ has; write a .nib file instead"));
  }
  return loss;
}

absl::Status GptqRows::Keep(int64_t first, int64_t count,
                            Buffers* buffers) const {
  std::vector<float> offsets(
      symmetric() ? 0 : static_cast<size_t>(count * form_.groups()));
  codes_->Read(first, count,
               {Part(buffers->codes, 0, count * form_.inputs),
                Part(buffers->scales, 0, count * form_.groups()),
                absl::MakeSpan(offsets)});
  for (int64_t i = 0; i < count * form_.groups(); ++i) {
    const float scale = buffers->scales[i];
    if (!(scale - scale == 0.0f && ToFloat(ToF16(scale)) == scale)) {
      return Error(
          Invalid("has a scale that is not finite or that f16 does not hold "
                  "exactly, which is all that GPTQ has"));
    }
    buffers->zeros[i] =
        static_cast<uint8_t>(symmetric() ? 1 << (form_.bits - 1) : offsets[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<RoundingLoss> GptqRows::Read(int64_t first, int64_t count,
                                            GptqMatrix* matrix) const {
  Buffers buffers(form_, count);
  RoundingLoss sum;
  if (codes_ != nullptr) {
    const absl::Status status = Keep(first, count, &buffers);
    if (!status.ok()) return status;
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const absl::StatusOr<RoundingLoss> loss = Round(first + i, &buffers, i);
      if (!loss.ok()) return loss.status();
      sum.error += loss->error;
      sum.signal += loss->signal;
    }
  }
  matrix->SetRows(first, count, {buffers.codes, buffers.scales, buffers.zeros});
  return sum;
}

void GptqRows::Release() const {
  if (floats_.has_value()) floats_->Release(0, floats_->rows());
}

}  // namespace nibble
