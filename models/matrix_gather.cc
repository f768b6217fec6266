#include "models/matrix_gather.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "kernels/convert/convert.h"
#include "kernels/shared_status.h"
#include "models/coded_values.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {
namespace {

// Halfway from bf16's largest value to the next power of two: from here on
// rounding to nearest gives infinity.
constexpr float kBF16Overflow = 0x1.FFp127f;

// Rows that a thread reads at once: some formats store neighbouring rows side
// by side, and their readers work in blocks of 64.
constexpr int64_t kCodedRows = 64;

bool RoundsToFiniteBF16(absl::Span<const float> values) {
  return absl::c_all_of(
      values, [](float value) { return std::abs(value) < kBF16Overflow; });
}

absl::Status NotFinite() {
  return absl::InvalidArgumentError(
      "holds a value that is not a finite number; the file is damaged");
}

// Writes the rows as `dtype`, which is theirs or kF32.
absl::Status CopyRows(const TensorView& view, const RowRange& range,
                      DType dtype, std::byte* out) {
  if (view.dtype == dtype) {
    const size_t row_bytes =
        view.bytes / static_cast<size_t>(view.shape.dim(0));
    std::memcpy(out,
                view.data + row_bytes * static_cast<size_t>(range.first_row),
                row_bytes * static_cast<size_t>(range.rows));
    return absl::OkStatus();
  }
  const size_t inputs = static_cast<size_t>(view.shape.dim(1));
  float* values = reinterpret_cast<float*>(out);
  for (int64_t row = 0; row < range.rows; ++row) {
    const absl::Status converted = ConvertRowToF32(
        view, range.first_row + row, absl::MakeSpan(values, inputs));
    if (!converted.ok()) return converted;
    values += inputs;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MatrixGather::Error(const std::string& tensor,
                                 const absl::Status& status) const {
  return absl::Status(status.code(),
                      absl::StrCat(tensors_.path(), ": tensor ", tensor, ": ",
                                   status.message()));
}

// Where the rows of a range come from: dense bytes, or else codes.
struct MatrixGather::Source {
  TensorView view;                     // data is null if there are codes alone
  const CodedMatrix* codes = nullptr;  // null if there are dense bytes
};

absl::Status MatrixGather::CheckValues(absl::Span<const float> values,
                                       DType stored) const {
  if (!AllFinite(values)) return NotFinite();
  // Of dense types, only f32 reaches beyond bf16's largest value.
  if (range_ == Range::kBF16 && stored == DType::kF32 &&
      !RoundsToFiniteBF16(values)) {
    return absl::OutOfRangeError(
        "holds a value beyond bf16's range; hold the weights in f32");
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> MatrixGather::Stored(const std::string& name) {
  const absl::StatusOr<TensorView> view = tensors_.Find(name);
  if (!view.ok() || checked_.contains(name)) return view;
  SharedStatus status;
  pool_.ParallelFor(view->shape.dim(0), [&](int64_t begin, int64_t end, int) {
    Array<float> values(static_cast<size_t>(view->shape.dim(1)));
    for (int64_t row = begin; row < end; ++row) {
      status.Update(ConvertRowToF32(*view, row, values.span()));
      status.Update(CheckValues(values.span(), view->dtype));
    }
  });
  if (!status.Get().ok()) return Error(name, status.Get());
  checked_.insert(name);
  return view;
}

absl::StatusOr<MatrixGather::Source> MatrixGather::Open(const RowRange& range) {
  Source source;
  const absl::StatusOr<TensorView> view = Stored(range.tensor);
  if (view.ok()) {
    source.view = *view;
    return source;
  }
  source.codes = tensors_.FindCoded(range.tensor);
  if (source.codes == nullptr || !absl::IsUnimplemented(view.status())) {
    return view.status();
  }
  const CodedForm& form = source.codes->form();
  source.view = {DType::kF32, Shape({form.outputs, form.inputs}), nullptr, 0};
  return source;
}

absl::Status MatrixGather::ReadCodes(const Source& source,
                                     const RowRange& range, float* out) const {
  const int64_t inputs = source.view.shape.dim(1);
  const int64_t blocks = (range.rows + kCodedRows - 1) / kCodedRows;
  SharedStatus status;
  pool_.ParallelFor(blocks, [&](int64_t begin, int64_t end, int) {
    CodedReader reader(*source.codes);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kCodedRows;
      const int64_t rows = std::min(kCodedRows, range.rows - first);
      const absl::Span<float> values = absl::MakeSpan(
          out + first * inputs, static_cast<size_t>(rows * inputs));
      reader.Read(range.first_row + first, rows, values);
      status.Update(CheckValues(values, DType::kF32));
    }
  });
  return status.Get();
}

absl::StatusOr<GatheredMatrix> MatrixGather::Matrix(
    absl::Span<const RowRange> rows) {
  std::vector<Source> sources;
  int64_t outputs = 0;
  bool same_dtype = true;
  for (const RowRange& range : rows) {
    absl::StatusOr<Source> source = Open(range);
    if (!source.ok()) return source.status();
    sources.push_back(*source);
    outputs += range.rows;
    same_dtype &= source->view.dtype == sources[0].view.dtype;
  }
  GatheredMatrix result;
  const TensorView& first = sources[0].view;
  if (rows.size() == 1 && first.data != nullptr &&
      outputs == first.shape.dim(0)) {
    result.view = first;
    return result;
  }
  const DType dtype = same_dtype ? first.dtype : DType::kF32;
  const Shape shape = {outputs, first.shape.dim(1)};
  const absl::StatusOr<int64_t> bytes = TensorBytes(dtype, shape);
  if (!bytes.ok()) return Error(rows[0].tensor, bytes.status());
  result.memory = AlignedBuffer(static_cast<size_t>(*bytes));
  result.view = TensorView{dtype, shape, result.memory.data(),
                           static_cast<size_t>(*bytes)};
  std::byte* next = result.memory.data();
  const int64_t row_bytes = *bytes / outputs;
  for (size_t i = 0; i < rows.size(); ++i) {
    const absl::Status read =
        sources[i].codes != nullptr
            ? ReadCodes(sources[i], rows[i], reinterpret_cast<float*>(next))
            : CopyRows(sources[i].view, rows[i], dtype, next);
    if (!read.ok()) return Error(rows[i].tensor, read);
    next += rows[i].rows * row_bytes;
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
