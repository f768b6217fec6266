#include "quantization/calibrated/tensor_codes.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <map>
#include <memory>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/shared_status.h"

namespace nibble {
namespace {

template <class T>
absl::Span<T> Part(absl::Span<T> values, int64_t first, int64_t count) {
  return values.empty() ? values
                        : values.subspan(static_cast<size_t>(first),
                                         static_cast<size_t>(count));
}

}  // namespace

absl::StatusOr<std::vector<std::pair<std::string, std::vector<TensorRows>>>>
RowsByTensor(const std::vector<RowRange>& ranges) {
  std::map<std::string, std::vector<TensorRows>> tensors;
  int64_t from = 0;
  for (const RowRange& range : ranges) {
    tensors[range.tensor].push_back({range.first_row, range.rows, from});
    from += range.rows;
  }
  std::vector<std::pair<std::string, std::vector<TensorRows>>> result;
  for (auto& [name, rows] : tensors) {
    std::sort(rows.begin(), rows.end(),
              [](const TensorRows& a, const TensorRows& b) {
                return a.first < b.first;
              });
    int64_t next = 0;
    for (const TensorRows& part : rows) {
      if (part.first != next) {
        return absl::UnimplementedError(
            absl::StrCat("tensor ", name,
                         ": its rows belong to several matrices, or to none"));
      }
      next += part.rows;
    }
    result.emplace_back(name, std::move(rows));
  }
  return result;
}

TensorCodes::TensorCodes(const CodedMatrix& matrix,
                         std::vector<TensorRows> rows)
    : matrix_(matrix), rows_(std::move(rows)), form_(matrix.form()) {
  form_.outputs = rows_.back().first + rows_.back().rows;
}

int64_t TensorCodes::stored_bytes() const {
  return matrix_.stored_bytes() / matrix_.form().outputs * form_.outputs;
}

void TensorCodes::Read(int64_t first_row, int64_t rows,
                       const CodedRowsBuffer& out) const {
  const int64_t groups = form_.groups();
  auto part = std::upper_bound(
      rows_.begin(), rows_.end(), first_row,
      [](int64_t row, const TensorRows& next) { return row < next.first; });
  --part;
  for (int64_t done = 0; done < rows; ++part) {
    const int64_t skipped = first_row + done - part->first;
    const int64_t count = std::min(rows - done, part->rows - skipped);
    matrix_.Read(part->from + skipped, count,
                 {Part(out.codes, done * form_.inputs, count * form_.inputs),
                  Part(out.scales, done * groups, count * groups),
                  Part(out.offsets, done * groups, count * groups)});
    done += count;
  }
}

absl::StatusOr<std::unique_ptr<const RoundedCodes>> RoundedCodes::Create(
    const TensorSource& tensors, const std::vector<RowRange>& ranges,
    int64_t group_size, ThreadPool& pool) {
  absl::StatusOr<MatrixRows> rows = MatrixRows::Find(tensors, ranges);
  if (!rows.ok()) return rows.status();
  RoundingOptions rounding;
  rounding.bits = 8;
  rounding.group_size = group_size;
  absl::StatusOr<PackedLayout> layout =
      RoundedLayout(rounding, rows->rows(), rows->inputs());
  if (!layout.ok()) return layout.status();
  SharedStatus status;
  std::atomic<bool> wide(false);
  pool.ParallelFor(rows->rows(), [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(rows->inputs()));
    for (int64_t i = begin; i < end; ++i) {
      const absl::Status read = rows->Read(i, absl::MakeSpan(row));
      if (!read.ok()) return status.Update(rows->Error(i, read));
      const RowSurvey survey = SurveyRow(row, *layout);
      if (survey.needs_wide_scales) wide.store(true);
      if (!survey.in_range) {
        return status.Update(rows->Error(
            i, absl::InvalidArgumentError(
                   "holds a weight that is not a finite number, or too large "
                   "to be rounded")));
      }
    }
  });
  if (!status.Get().ok()) return status.Get();
  layout->wide_scales = wide.load();
  return std::unique_ptr<const RoundedCodes>(
      new RoundedCodes(*std::move(rows), *layout));
}

RoundedCodes::RoundedCodes(MatrixRows rows, const PackedLayout& layout)
    : rows_(std::move(rows)), layout_(layout) {
  form_.outputs = layout_.outputs;
  form_.inputs = layout_.inputs;
  form_.bits = 8;
  form_.group_size = layout_.group_size;
  form_.offset = CodeOffset::kSymmetric;
}

void RoundedCodes::Read(int64_t first_row, int64_t rows,
                        const CodedRowsBuffer& out) const {
  const int64_t groups = form_.groups();
  std::vector<float> row(static_cast<size_t>(form_.inputs));
  std::vector<uint8_t> codes(row.size());
  for (int64_t i = 0; i < rows; ++i) {
    CHECK_OK(rows_.Read(first_row + i, absl::MakeSpan(row)));
    RoundRow(
        row, layout_,
        {out.codes.empty() ? absl::MakeSpan(codes)
                           : Part(out.codes, i * form_.inputs, form_.inputs),
         Part(out.scales, i * groups, groups), absl::Span<uint8_t>()});
  }
}

}  // namespace nibble
