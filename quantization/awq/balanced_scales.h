// Scales that even out what each input adds to the error and to the range.
//
//   std::vector<float> scales = BalanceScales(pair, {{weights, gram, spec}},
//                                             start, pool);
//
// Were rounding errors independent and uniform, the loss of a linear would be,
// up to a constant,
//
//   sum over groups g of A_g B_g,   A_g = sum over j in g of v_j / s_j^2,
//                                   B_g = sum over rows of range_g(W s)^2,
//
// v_j being G_jj, or the variances of scale_loss.h, and range_g what the grid
// of a group spans. Raising s_j lowers input j's share a_j of A_g and raises
// its share b_j of B_g, that of the weights that are the extremes of their
// groups. At the minimum the two shares are equal. The search walks there: log
// s_j += rate (a_j - b_j). Scales of several inputs move by the mean, weighted
// by A_g B_g.
//
// The usual family s = mean|x|^alpha / mean|w|^beta is this minimum where all
// rows are alike; here every channel is free. docs/quantization.md compares.
#ifndef NIBBLE_QUANTIZATION_AWQ_BALANCED_SCALES_H_
#define NIBBLE_QUANTIZATION_AWQ_BALANCED_SCALES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/awq/scale_loss.h"
#include "quantization/folding/folding.h"

namespace nibble {

// linears: those of pair.consumers that are rounded, at least one. start,
// result: [free_scales], positive. The same on any number of threads.
std::vector<float> BalanceScales(const FoldablePair& pair,
                                 absl::Span<const RoundedLinear> linears,
                                 std::vector<float> start, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_AWQ_BALANCED_SCALES_H_
