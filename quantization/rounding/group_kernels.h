// Loops over the weights of one group, vectorised: what the search and the
// rounding of matrices share.
#ifndef NIBBLE_QUANTIZATION_ROUNDING_GROUP_KERNELS_H_
#define NIBBLE_QUANTIZATION_ROUNDING_GROUP_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "quantization/rounding/grid.h"

namespace nibble {

// codes[i] = EncodeWeight(weights[i]).
void EncodeGroup(absl::Span<const float> weights, const GroupGrid& grid,
                 const GridSpec& spec, absl::Span<uint8_t> codes);

// A grid as the loops take it: steps = clamp(round((w - shift) / scale), low,
// high), and the weight becomes scale * steps + shift. `scale` is not 0.
struct StepGrid {
  float scale = 1;
  float shift = 0;
  float low = 0;
  float high = 0;
};

StepGrid StepsOf(const GroupGrid& grid, const GridSpec& spec);

// Sums over a group of importance times the below.
struct StepSums {
  float squares = 0;   // of steps
  float products = 0;  // of w and steps
  float error = 0;     // of (w - decoded)^2
  // With `shifts` only.
  float ones = 0;
  float steps = 0;
  float values = 0;  // of w
};

// importance: one for each weight.
StepSums SumSteps(absl::Span<const float> weights,
                  absl::Span<const float> importance, const StepGrid& grid,
                  bool shifts);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_GROUP_KERNELS_H_
