#include "quantization/export/coded_blocks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "models/checkpoint.h"
#include "quantization/export/gguf_blocks.h"
#include "tensor/bf16.h"
#include "tensor/block_format.h"

namespace nibble {
namespace {

// Rows read at a time, as the readers of packed codes like it.
constexpr int64_t kRowsAtOnce = 64;

constexpr float kQ4Zero = 8.0f;
constexpr float kQ8Zero = 128.0f;

// False for NaN and infinity too.
bool IsF16(float value) {
  return value - value == 0.0f && ToFloat(ToF16(value)) == value;
}

// Whether codes of `bits` with this zero stay within those of a block whose
// zero is `wanted`, out of 2 * wanted codes.
bool Fits(int bits, float zero, float wanted) {
  const float highest = static_cast<float>((1 << bits) - 1);
  return zero <= wanted && highest - zero <= wanted - 1.0f;
}

}  // namespace

absl::StatusOr<std::optional<CodedBlocks>> CodedBlocks::Find(
    const TensorSource& tensors, const GgufPart& part) {
  CodedBlocks blocks(tensors);
  int64_t coded = 0;
  for (const RowRange& range : part.rows) {
    if (tensors.FindCoded(range.tensor) != nullptr) ++coded;
  }
  if (coded == 0) return std::nullopt;
  for (const RowRange& range : part.rows) {
    const absl::Status status = blocks.Add(range);
    if (!status.ok()) return status;
  }
  return blocks;
}

absl::Status CodedBlocks::Add(const RowRange& range) {
  Source source;
  source.tensor = range.tensor;
  source.matrix = tensors_->FindCoded(range.tensor);
  source.first_row = range.first_row;
  source.rows = range.rows;
  source.end = range.rows + (sources_.empty() ? 0 : sources_.back().end);
  if (source.matrix == nullptr) {
    return Error(source, "is not quantized, unlike its neighbours");
  }
  const CodedForm& form = source.matrix->form();
  if (!form.input_order.empty()) {
    return Error(source,
                 "was quantized with act-order, which a GGUF file cannot "
                 "express; convert it to a .nib file instead");
  }
  if (form.inputs % kBlockElements != 0 ||
      (form.group_size < form.inputs &&
       form.group_size % kBlockElements != 0)) {
    return Error(source, absl::StrCat("has groups of ", form.group_size, " in ",
                                      form.inputs,
                                      " inputs; a GGUF file needs multiples of "
                                      "32"));
  }
  stored_bytes_ += source.matrix->stored_bytes() / form.outputs * range.rows;
  sources_.push_back(std::move(source));
  return absl::OkStatus();
}

absl::Status CodedBlocks::Error(const Source& source,
                                absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(tensors_->path(), ": tensor ", source.tensor, " ", what));
}

const CodedBlocks::Source& CodedBlocks::SourceOf(int64_t row) const {
  return *std::upper_bound(
      sources_.begin(), sources_.end(), row,
      [](int64_t wanted, const Source& source) { return wanted < source.end; });
}

CodedBlocks::Rows CodedBlocks::Read(const Source& source, int64_t first,
                                    int64_t count) const {
  const CodedForm& form = source.matrix->form();
  const int64_t groups = form.groups();
  const int64_t blocks = form.inputs / kBlockElements;
  Rows rows;
  rows.codes.resize(static_cast<size_t>(count * form.inputs));
  std::vector<float> scales(static_cast<size_t>(count * groups)),
      offsets(scales.size());
  source.matrix->Read(
      source.first_row + first - (source.end - source.rows), count,
      {absl::MakeSpan(rows.codes), absl::MakeSpan(scales),
       form.offset == CodeOffset::kSymmetric ? absl::Span<float>()
                                             : absl::MakeSpan(offsets)});
  if (form.offset == CodeOffset::kSymmetric) {
    offsets.assign(offsets.size(), static_cast<float>(1 << (form.bits - 1)));
  }
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const size_t group = static_cast<size_t>(
          row * groups + block * kBlockElements / form.group_size);
      rows.scales.push_back(scales[group]);
      rows.offsets.push_back(offsets[group]);
    }
  }
  return rows;
}

absl::StatusOr<DType> CodedBlocks::Survey() const {
  bool q4_0 = true, q4_1 = true, q8_0 = true;
  for (const Source& source : sources_) {
    const CodedForm& form = source.matrix->form();
    const bool minimums = form.offset == CodeOffset::kMinimums;
    for (int64_t first = source.end - source.rows; first < source.end;
         first += kRowsAtOnce) {
      const Rows rows =
          Read(source, first, std::min(kRowsAtOnce, source.end - first));
      for (size_t b = 0; b < rows.scales.size(); ++b) {
        const float scale = rows.scales[b], offset = rows.offsets[b];
        if (!IsF16(scale)) {
          return Error(source,
                       "has a scale that is not finite or that f16 does not "
                       "hold exactly, as a GGUF file has to");
        }
        q4_0 &= !minimums && Fits(form.bits, offset, kQ4Zero);
        q8_0 &= !minimums && Fits(form.bits, offset, kQ8Zero);
        q4_1 &= form.bits <= 4 && IsF16(minimums ? offset : -scale * offset);
      }
    }
  }
  if (q4_0) return DType::kQ4_0;
  if (q4_1) return DType::kQ4_1;
  if (q8_0) return DType::kQ8_0;
  return Error(sources_[0],
               "has zero points or minimums that none of Q4_0, Q4_1 and Q8_0 "
               "holds exactly");
}

void CodedBlocks::Encode(
    DType dtype, int64_t first, int64_t count,
    absl::FunctionRef<absl::Span<std::byte>(int64_t row)> out) const {
  for (int64_t end = first + count; first < end; first += count) {
    const Source& source = SourceOf(first);
    count = std::min({kRowsAtOnce, end - first, source.end - first});
    Rows rows = Read(source, first, count);
    const CodedForm& form = source.matrix->form();
    if (dtype == DType::kQ4_1) {
      for (size_t b = 0; b < rows.offsets.size(); ++b) {
        if (form.offset == CodeOffset::kMinimums) break;
        rows.offsets[b] *= -rows.scales[b];
      }
    } else {
      const float zero = dtype == DType::kQ4_0 ? kQ4Zero : kQ8Zero;
      for (size_t k = 0; k < rows.codes.size(); ++k) {
        rows.codes[k] = static_cast<uint8_t>(rows.codes[k] + zero -
                                             rows.offsets[k / kBlockElements]);
      }
    }
    const size_t inputs = static_cast<size_t>(form.inputs);
    const size_t blocks = inputs / kBlockElements;
    for (int64_t row = 0; row < count; ++row) {
      const size_t at = static_cast<size_t>(row);
      EncodeGgufCodes(
          dtype, absl::MakeConstSpan(rows.codes).subspan(at * inputs, inputs),
          absl::MakeConstSpan(rows.scales).subspan(at * blocks, blocks),
          absl::MakeConstSpan(rows.offsets).subspan(at * blocks, blocks),
          out(first + row));
    }
  }
}

}  // namespace nibble
