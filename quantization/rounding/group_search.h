// The grid of a group of weights with the least squared error.
//
//   GroupGrid grid = SearchGroup(weights, importance, spec, {});
//
// FitGroup lets the extremes of a group decide. But most weights are small, so
// a slightly narrower range, which clamps the extremes, often loses less; and a
// group may lie on a grid whose ends it does not reach. The search
//
// 1. tries ranges narrower than the extremes (clip search), and those in which
//    the extremes take fewer codes than there are; symmetric grids with either
//    sign of the scale; zero points to either side,
// 2. refits the best: codes fixed, the scale (and minimum) of least weighted
//    squares, rounded as stored; then the codes anew, until nothing improves,
// 3. keeps FitGroup's grid unless what was found is better.
//
// The error of a group is sum_j importance_j (w_j - decoded_j)^2. With the
// means of the squared inputs as importance it is the expected error of the
// output, were the inputs uncorrelated.
#ifndef NIBBLE_QUANTIZATION_ROUNDING_GROUP_SEARCH_H_
#define NIBBLE_QUANTIZATION_ROUNDING_GROUP_SEARCH_H_

#include "absl/types/span.h"
#include "quantization/rounding/grid.h"

namespace nibble {

struct SearchOptions {
  // Ranges from the extremes down to the narrowest worth trying, each the same
  // ratio below the one before. The refit makes up for few: of normal weights
  // in groups of 32 with 4 bits, 6, 10, 20 and 40 steps leave 0.6433, 0.6433,
  // 0.6432 and 0.6432 of the extremes' error (symmetric) and 0.446, 0.446,
  // 0.442 and 0.441 (minimums): group_search_benchmark.
  int steps = 8;
};

// Never worse than FitGroup in the error above, as WeightedError sums it.
// importance: not negative, one for each weight; empty, or all 0: all alike.
// REQUIRES: as FitGroup.
GroupGrid SearchGroup(absl::Span<const float> weights,
                      absl::Span<const float> importance, const GridSpec& spec,
                      const SearchOptions& options);

// The error above of the nearest codes on a grid.
double WeightedError(absl::Span<const float> weights,
                     absl::Span<const float> importance, const GroupGrid& grid,
                     const GridSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_GROUP_SEARCH_H_
