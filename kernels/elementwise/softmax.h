// Softmax and the logarithm of a sum of exponentials.
//
//   Softmax(probabilities);                        // in place
//   double nll = LogSumExp(logits) - logits[target];
//
// Both subtract the maximum first, so no finite input overflows. -infinity is a
// probability of zero. If any input is NaN or +infinity, or all are -infinity,
// softmax has no value: Softmax fills x with NaN; LogSumExp returns NaN,
// +infinity or -infinity respectively.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_H_
#define NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_H_

#include "absl/types/span.h"

namespace nibble {

// x = exp(x) / sum(exp(x)). An empty x stays so.
void Softmax(absl::Span<float> x);

// log(sum(exp(x))), summed in double. -infinity if x is empty.
double LogSumExp(absl::Span<const float> x);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_H_
