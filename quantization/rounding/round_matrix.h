// Rounds a whole matrix to its nearest codes, on threads.
//
//   RoundOptions options;
//   options.spec = spec;                      // round to nearest
//   options.search = true;                    // of the group's best grid
//   options.importance = mean_squares;        // of the inputs
//   QuantizedMatrix matrix = RoundMatrix(weights, options, pool);
//
// Without search and clip the result is that of round_to_nearest.h bit for
// bit where it has the grid: 4 bits with zeros, 4 bits symmetric, 8 bits,
// with groups that packed weights can have (RoundedLayout).
#ifndef NIBBLE_QUANTIZATION_ROUNDING_ROUND_MATRIX_H_
#define NIBBLE_QUANTIZATION_ROUNDING_ROUND_MATRIX_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_search.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/view.h"

namespace nibble {

struct RoundOptions {
  GridSpec spec;
  // Searches each group's grid for the least error (group_search.h) instead of
  // taking the extremes.
  bool search = false;
  SearchOptions search_options = {};
  // [inputs]: what an input's squared errors count in the search; or empty.
  absl::Span<const float> importance = {};
  // [outputs, groups]: ratios of FitClippedGroup, or empty. Not with `search`.
  absl::Span<const float> clip = {};
};

// InvalidArgument, naming the row and input, unless every weight is a number of
// magnitude at most kMaxRoundedWeight (round_to_nearest.h).
absl::Status CheckWeights(MatrixView<const float> weights, ThreadPool& pool);

// weights: [outputs, inputs]. REQUIRES: CheckWeights and CheckGridSpec passed.
QuantizedMatrix RoundMatrix(MatrixView<const float> weights,
                            const RoundOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_ROUNDING_ROUND_MATRIX_H_
