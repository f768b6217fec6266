// The range of a group's weights with trained ends: SignRound's alpha and beta.
//
//   TunedRange range = RangeOf(weights, spec);
//   GroupGrid grid = GridOf(range, spec);       // at first FitGroup's
//   RangeSlopes slopes = SlopesOf(sums, range, grid, spec);
//
// The grid is that of [low_ratio * low, high_ratio * high]. Under
// CodeOffset::kMinimums, where the range need not hold 0, both ends are taken
// from its middle instead.
#ifndef NIBBLE_QUANTIZATION_TUNING_TUNED_RANGE_H_
#define NIBBLE_QUANTIZATION_TUNING_TUNED_RANGE_H_

#include "absl/types/span.h"
#include "quantization/rounding/grid.h"
#include "quantization/tuning/fake_quant.h"

namespace nibble {

struct TunedRange {
  float low = 0;  // of the weights; at most 0 but for kMinimums
  float high = 0;
  float low_ratio = 1;
  float high_ratio = 1;
};

// The range whose grid is `grid`.
TunedRange RangeOf(const GroupGrid& grid, const GridSpec& spec);

TunedRange RangeOf(absl::Span<const float> weights, const GridSpec& spec);

GroupGrid GridOf(const TunedRange& range, const GridSpec& spec);

// dLoss/d(ratio), the scale's rounding to its stored type passed over.
struct RangeSlopes {
  double low = 0;
  double high = 0;
};

// `sums` are of `grid`, which is that of `range`. Under kSymmetric the scale
// hangs on the end that is further from 0, and only that one has a slope.
RangeSlopes SlopesOf(const FakeQuantSums& sums, const TunedRange& range,
                     const GroupGrid& grid, const GridSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_TUNED_RANGE_H_
