// Slopes of attention with linear biases (Press et al., arXiv 2108.12409).
//
//   std::vector<float> slopes = AlibiSlopes(heads);
//   for (float& s : slopes) s *= scale;   // Falcon biases before it scales
//   params.alibi_slopes = slopes.data();
//
// With p the largest power of two <= heads, head h < p has slope
// 2^(-8 (h + 1) / p); the heads after that take every second slope of the
// sequence for 2p heads, starting from its first.
#ifndef NIBBLE_KERNELS_ATTENTION_ALIBI_H_
#define NIBBLE_KERNELS_ATTENTION_ALIBI_H_

#include <cstdint>
#include <vector>

namespace nibble {

// [heads]. REQUIRES: heads >= 1.
std::vector<float> AlibiSlopes(int64_t heads);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ALIBI_H_
