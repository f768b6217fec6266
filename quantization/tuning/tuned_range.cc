#include "quantization/tuning/tuned_range.h"

#include <algorithm>

#include "absl/types/span.h"
#include "quantization/rounding/grid.h"
#include "quantization/tuning/fake_quant.h"
#include "tensor/coded_matrix.h"

namespace nibble {
namespace {

// What the ratios shrink the range towards.
double MiddleOf(const TunedRange& range, const GridSpec& spec) {
  if (spec.offset != CodeOffset::kMinimums) return 0.0;
  return (static_cast<double>(range.low) + range.high) / 2;
}

double End(double end, double ratio, double middle) {
  // The end itself at ratio 1, without a rounding.
  return ratio == 1.0 ? end : middle + ratio * (end - middle);
}

RangeSlopes SymmetricSlopes(double by_scale, const TunedRange& range,
                            const GridSpec& spec) {
  const double low = static_cast<double>(range.low_ratio) * range.low;
  const double high = static_cast<double>(range.high_ratio) * range.high;
  const bool up = high >= -low;
  const double by_end =
      by_scale / (spec.bits == 8 ? (up ? 127.0 : -127.0) : -spec.middle_code());
  if (up) return {0.0, by_end * range.high};
  return {by_end * range.low, 0.0};
}

}  // namespace

TunedRange RangeOf(absl::Span<const float> weights, const GridSpec& spec) {
  const auto [min, max] = std::minmax_element(weights.begin(), weights.end());
  TunedRange range{*min, *max};
  if (spec.offset != CodeOffset::kMinimums) {
    range.low = std::min(0.0f, range.low);
    range.high = std::max(0.0f, range.high);
  }
  return range;
}

TunedRange RangeOf(const GroupGrid& grid, const GridSpec& spec) {
  const float top = static_cast<float>(spec.max_code());
  switch (spec.offset) {
    case CodeOffset::kZeros:
      return {-grid.offset * grid.scale, (top - grid.offset) * grid.scale};
    case CodeOffset::kMinimums:
      return {grid.offset, grid.offset + top * grid.scale};
    case CodeOffset::kSymmetric:
      break;
  }
  // From the lowest code to the highest; the one further from 0, the lowest
  // but with 8 bits, has the say.
  const float middle = static_cast<float>(spec.middle_code());
  const float first = (static_cast<float>(spec.min_code()) - middle);
  const float a = first * grid.scale, b = (top - middle) * grid.scale;
  return {std::min(a, b), std::max(a, b)};
}

GroupGrid GridOf(const TunedRange& range, const GridSpec& spec) {
  const double middle = MiddleOf(range, spec);
  return FitRange(End(range.low, range.low_ratio, middle),
                  End(range.high, range.high_ratio, middle), spec);
}

RangeSlopes SlopesOf(const FakeQuantSums& sums, const TunedRange& range,
                     const GroupGrid& grid, const GridSpec& spec) {
  if (grid.scale == 0.0f) return {};
  double by_scale = sums.scale;
  if (spec.offset == CodeOffset::kSymmetric) {
    return SymmetricSlopes(by_scale, range, spec);
  }
  const double middle = MiddleOf(range, spec);
  const double low = End(range.low, range.low_ratio, middle);
  // A clamped value moves with the zero point, -low / scale.
  if (spec.offset == CodeOffset::kZeros) {
    by_scale -= sums.clamped * low / grid.scale;
  }
  const double steps = spec.max_code();
  return {(range.low - middle) * (sums.clamped - by_scale / steps),
          (range.high - middle) * by_scale / steps};
}

}  // namespace nibble
