#include "quantization/round_to_nearest.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "quantization/round_to_nearest_kernels.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

constexpr float kF16MinNormal = 0x1p-14f;
constexpr float kF16Max = 65504.0f;
constexpr float kInt4Codes = 15.0f;  // the largest code
constexpr float kInt8Codes = 255.0f;

// False for NaN too.
bool InRange(const GroupRange& range) {
  return range.min >= -kMaxRoundedWeight && range.max <= kMaxRoundedWeight;
}

// The scale before it is rounded to its stored type; 0 for zeros alone.
double ExactScale(const GroupRange& range, const PackedLayout& layout) {
  const double min = range.min, max = range.max;
  if (layout.format == WeightFormat::kInt8) return std::max(-min, max) / 127.0;
  if (!layout.symmetric) return (max - min) / 15.0;
  return (max >= -min ? max : min) / -8.0;
}

bool FitsF16(double scale) {
  const float magnitude = std::abs(static_cast<float>(scale));
  return scale == 0.0 ||
         (magnitude >= kF16MinNormal && ToFloat(ToF16(magnitude)) <= kF16Max);
}

// In the stored type.
float StoredScale(double exact, bool wide) {
  const float scale = static_cast<float>(exact);
  if (!wide) return ToFloat(ToF16(scale));
  if (scale == 0.0f && exact != 0.0) {
    return static_cast<float>(
        std::copysign(std::numeric_limits<float>::denorm_min(), exact));
  }
  return scale;
}

CodeGrid GridOf(const GroupRange& range, const PackedLayout& layout) {
  CodeGrid grid;
  grid.scale = StoredScale(ExactScale(range, layout), layout.wide_scales);
  if (layout.format == WeightFormat::kInt8) {
    grid.min_code = 1.0f;
    grid.max_code = kInt8Codes;
  } else {
    grid.max_code = kInt4Codes;
  }
  if (!layout.has_zeros()) {
    grid.zero = static_cast<float>(layout.symmetric_zero());
  } else if (grid.scale != 0.0f) {
    grid.zero = std::min(std::nearbyint(-range.min / grid.scale), kInt4Codes);
  }
  return grid;
}

// Calls fn(group, first input, inputs of the group).
template <class Fn>
void ForEachGroup(const PackedLayout& layout, const Fn& fn) {
  const int64_t groups = layout.groups();
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * layout.group_size;
    fn(group, first, std::min(layout.group_size, layout.inputs - first));
  }
}

}  // namespace

absl::StatusOr<PackedLayout> RoundedLayout(const RoundingOptions& options,
                                           int64_t outputs, int64_t inputs) {
  if (options.bits != 4 && options.bits != 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.bits, " bits: weights have 4 or 8"));
  }
  const bool int8 = options.bits == 8;
  return PackedLayout::Create(int8 ? WeightFormat::kInt8 : WeightFormat::kInt4,
                              outputs, inputs, options.group_size,
                              int8 || options.symmetric);
}

RowSurvey SurveyRow(absl::Span<const float> row, const PackedLayout& layout) {
  DCHECK_EQ(static_cast<int64_t>(row.size()), layout.inputs);
  const RoundingKernels& kernels = ActiveRoundingKernels();
  RowSurvey survey;
  ForEachGroup(layout, [&](int64_t, int64_t first, int64_t count) {
    const GroupRange range = kernels.range(row.data() + first, count);
    survey.in_range &= InRange(range);
    survey.needs_wide_scales |= !FitsF16(ExactScale(range, layout));
  });
  return survey;
}

RoundingLoss RoundRow(absl::Span<const float> row, const PackedLayout& layout,
                      const RoundedRow& out) {
  DCHECK_EQ(static_cast<int64_t>(row.size()), layout.inputs);
  DCHECK_EQ(static_cast<int64_t>(out.codes.size()), layout.inputs);
  DCHECK_EQ(static_cast<int64_t>(out.scales.size()), layout.groups());
  DCHECK_EQ(static_cast<int64_t>(out.zeros.size()),
            layout.has_zeros() ? layout.groups() : 0);
  const RoundingKernels& kernels = ActiveRoundingKernels();
  RoundingLoss loss;
  ForEachGroup(layout, [&](int64_t group, int64_t first, int64_t count) {
    const float* weights = row.data() + first;
    uint8_t* codes = out.codes.data() + first;
    const CodeGrid grid = GridOf(kernels.range(weights, count), layout);
    out.scales[group] = grid.scale;
    const uint8_t zero = static_cast<uint8_t>(grid.zero);
    if (layout.has_zeros()) out.zeros[group] = zero;
    if (grid.scale == 0.0f) {
      std::fill_n(codes, count, zero);
      return;
    }
    const GroupLoss steps = kernels.round(weights, count, grid, codes);
    const double square = static_cast<double>(grid.scale) * grid.scale;
    loss.error += square * steps.error;
    loss.signal += square * steps.signal;
  });
  return loss;
}

}  // namespace nibble
