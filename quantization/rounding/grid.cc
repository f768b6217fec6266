#include "quantization/rounding/grid.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

constexpr float kF16MinNormal = 0x1p-14f;
constexpr float kF16Max = 65504.0f;

// The extremes as the grid wants them. In doubles, so that their difference
// stays finite.
struct Range {
  double min = 0;
  double max = 0;
};

Range RangeOf(absl::Span<const float> weights, const GridSpec& spec) {
  DCHECK(!weights.empty());
  const auto [min, max] = std::minmax_element(weights.begin(), weights.end());
  if (spec.offset == CodeOffset::kMinimums) return {*min, *max};
  return {std::min(0.0f, *min), std::max(0.0f, *max)};
}

}  // namespace

absl::Status CheckGridSpec(const GridSpec& spec) {
  if (spec.bits != 2 && spec.bits != 3 && spec.bits != 4 && spec.bits != 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.bits, " bits: weights have 2, 3, 4 or 8"));
  }
  if (spec.bits == 8 && spec.offset != CodeOffset::kSymmetric) {
    return absl::InvalidArgumentError(
        "8 bits with zero points or minimums: they are always symmetric");
  }
  const bool whole_row = spec.group_size == std::numeric_limits<int64_t>::max();
  if (spec.group_size < 1 ||
      (!whole_row && spec.group_size % kGroupSizeUnit != 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "group size ", spec.group_size, ": groups are multiples of ",
        kGroupSizeUnit, ", or whole rows"));
  }
  return absl::OkStatus();
}

float StoredParameter(double exact) {
  const float value = static_cast<float>(exact);
  if (value == 0.0f && exact != 0.0) {
    return static_cast<float>(
        std::copysign(std::numeric_limits<float>::denorm_min(), exact));
  }
  const float magnitude = std::abs(value);
  const float half = ToFloat(ToF16(magnitude));
  if (magnitude < kF16MinNormal || !(half <= kF16Max)) return value;
  return std::copysign(half, value);
}

GroupGrid FitRange(double low, double high, const GridSpec& spec) {
  GroupGrid grid;
  switch (spec.offset) {
    case CodeOffset::kSymmetric: {
      grid.offset = static_cast<float>(spec.middle_code());
      const bool up = high >= -low;
      grid.scale = StoredParameter(spec.bits == 8 ? std::max(-low, high) / 127.0
                                                  : (up ? high : low) /
                                                        -spec.middle_code());
      break;
    }
    case CodeOffset::kZeros:
      grid.scale = StoredParameter((high - low) / spec.max_code());
      if (grid.scale != 0.0f) {
        grid.offset =
            std::min(std::nearbyint(static_cast<float>(-low) / grid.scale),
                     static_cast<float>(spec.max_code()));
      }
      break;
    case CodeOffset::kMinimums:
      grid.offset = StoredParameter(low);
      grid.scale = StoredParameter((high - low) / spec.max_code());
      break;
  }
  return grid;
}

GroupGrid FitGroup(absl::Span<const float> weights, const GridSpec& spec) {
  const Range range = RangeOf(weights, spec);
  return FitRange(range.min, range.max, spec);
}

GroupGrid FitClippedGroup(absl::Span<const float> weights, float ratio,
                          const GridSpec& spec) {
  Range range = RangeOf(weights, spec);
  const double middle =
      spec.offset == CodeOffset::kMinimums ? (range.min + range.max) / 2 : 0.0;
  if (ratio != 1.0f) {
    range.min = middle + (range.min - middle) * ratio;
    range.max = middle + (range.max - middle) * ratio;
  }
  return FitRange(range.min, range.max, spec);
}

uint8_t EncodeWeight(float weight, const GroupGrid& grid,
                     const GridSpec& spec) {
  const bool minimums = spec.offset == CodeOffset::kMinimums;
  const float zero = minimums ? 0.0f : grid.offset;
  if (grid.scale == 0.0f) return static_cast<uint8_t>(zero);
  const float above = minimums ? weight - grid.offset : weight;
  const float code = std::nearbyint(above / grid.scale) + zero;
  return static_cast<uint8_t>(std::clamp(code,
                                         static_cast<float>(spec.min_code()),
                                         static_cast<float>(spec.max_code())));
}

float DecodeWeight(uint8_t code, const GroupGrid& grid, const GridSpec& spec) {
  if (spec.offset == CodeOffset::kMinimums) {
    const float product = grid.scale * static_cast<float>(code);
    return product + grid.offset;
  }
  return grid.scale * (static_cast<float>(code) - grid.offset);
}

}  // namespace nibble
