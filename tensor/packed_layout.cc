#include "tensor/packed_layout.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Far above any matrix, and so small that no product of sizes wraps.
constexpr int64_t kMaxBytes = int64_t{1} << 46;
constexpr int64_t kMaxSize = int64_t{1} << 40;

// 255 * 127 * 65536 stays below 2^31.
constexpr int64_t kMaxInt8Group = 65536;
// 15 * 127 * 2^20 does too.
constexpr int64_t kMaxInt4Group = int64_t{1} << 20;

absl::Status CheckGroups(const PackedLayout& layout) {
  if (!IsInteger(layout.format)) {
    if (layout.group_size == 0 && layout.symmetric && !layout.wide_scales &&
        !layout.minimums) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat(WeightFormatName(layout.format),
                     " weights have no groups, zero points, minimums or "
                     "scales"));
  }
  if (layout.group_size < 1 || (layout.group_size % kGroupSizeUnit != 0 &&
                                layout.group_size < layout.inputs)) {
    return absl::InvalidArgumentError(
        absl::StrCat("group size ", layout.group_size,
                     " is not a positive multiple of ", kGroupSizeUnit));
  }
  if (layout.format == WeightFormat::kInt8 && !layout.symmetric) {
    return absl::InvalidArgumentError("int8 weights are symmetric only");
  }
  if (layout.minimums && layout.symmetric) {
    return absl::InvalidArgumentError(
        "weights with minimums are not symmetric");
  }
  const int64_t limit =
      layout.format == WeightFormat::kInt8 ? kMaxInt8Group : kMaxInt4Group;
  if (std::min(layout.group_size, layout.inputs) > limit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "groups of ", layout.group_size, " ", WeightFormatName(layout.format),
        " weights; at most ", limit, " share a scale"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view WeightFormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "unknown";
}

absl::StatusOr<WeightFormat> ParseWeightFormat(absl::string_view name) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (name == WeightFormatName(format)) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name,
                   "\" is no weight format; there are f32, bf16, "
                   "int8 and int4"));
}

int64_t PackedLayout::chunk_inputs() const {
  switch (format) {
    case WeightFormat::kF32:
      return 1;
    case WeightFormat::kBF16:
      return 2;
    case WeightFormat::kInt8:
      return 4;
    case WeightFormat::kInt4:
      return 8;
  }
  return 1;
}

absl::StatusOr<PackedLayout> PackedLayout::Create(
    WeightFormat format, int64_t outputs, int64_t inputs, int64_t group_size,
    bool symmetric, bool wide_scales) {
  PackedLayout wanted;
  wanted.format = format;
  wanted.outputs = outputs;
  wanted.inputs = inputs;
  wanted.group_size = group_size;
  wanted.symmetric = symmetric;
  wanted.wide_scales = wide_scales;
  return Checked(wanted);
}

absl::StatusOr<PackedLayout> PackedLayout::Checked(const PackedLayout& wanted) {
  PackedLayout layout = wanted;
  if (layout.outputs < 1 || layout.inputs < 1 || layout.outputs > kMaxSize ||
      layout.inputs > kMaxSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("no matrix has ", layout.outputs, " outputs and ",
                     layout.inputs, " inputs"));
  }
  const absl::Status groups = CheckGroups(layout);
  if (!groups.ok()) return groups;
  if (IsInteger(layout.format)) {
    layout.group_size = std::min(layout.group_size, layout.inputs);
  }
  if (layout.records() > kMaxBytes / layout.record_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", layout.outputs, " x ", layout.inputs,
                     " weights is too large"));
  }
  return layout;
}

}  // namespace nibble
