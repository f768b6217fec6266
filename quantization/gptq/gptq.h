// GPTQ (Frantar et al., arXiv 2210.17323): rounds a linear's weights one input
// after another and lets the inputs that are left make up for the error, by the
// second moments H of the inputs.
//
//   Gram gram(inputs);                          // gram.h
//   ...
//   GptqOptions options;
//   options.spec = {4, 128, CodeOffset::kZeros};
//   absl::StatusOr<GptqResult> result =
//       QuantizeGptq(weights, gram, options, pool);
//
// With H^-1 = U^T U, U upper triangular: column c is rounded, its error divided
// by U_cc is e_c, and every later column k becomes w_k - e_c U_ck. The sum of
// all e_c^2 is tr(dW H dW^T). A group's grid is fitted when its first column is
// reached, on weights that hold every earlier update; so the size of the blocks
// changes the speed and not one bit of the result, nor does the number of
// threads.
//
// Behind quantized blocks x is not what the float model gives the linear, x_f.
// With `correction` the target is therefore not W but W + C H^-1, C =
// correction (W mean((x_f - x) x^T) + residual): the weights that come closest,
// on x, to the float model's output and what the stream lacks, as least squares
// has it. GPTAQ (Li et al., arXiv 2504.02692) aims at the same outputs column
// by column.
//
// Damping: `damping` times the mean of H's diagonal is added to it. Where the
// factor fails, 0.01 more until 1; then, besides, a floor under the diagonal of
// 1e-6, 1e-5, ... 1 times its largest; then the matrix is rounded to nearest.
// Inputs that were never active (H_jj = 0) keep their weights: they are rounded
// to nearest, and neither give nor take.
//
// The matrix is rounded to nearest, too, where GPTQ cannot help: fewer tokens
// than kLeastTokenShare of the inputs, or a result whose error on the
// calibration inputs is above that of rounding to nearest.
#ifndef NIBBLE_QUANTIZATION_GPTQ_GPTQ_H_
#define NIBBLE_QUANTIZATION_GPTQ_GPTQ_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gram.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_search.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/view.h"

namespace nibble {

struct GptqOptions {
  GridSpec spec;
  // Inputs in descending order of H's diagonal. Groups are then of inputs that
  // do not lie side by side (QuantizedMatrix::input_order) unless the groups
  // are static.
  bool act_order = false;
  // Grids are fitted to the weights as they are at first.
  bool static_groups = false;
  double damping = 0.05;
  // Columns whose updates of later ones are applied together.
  int64_t block = 128;
  // Grids by SearchGroup instead of the extremes; a column's importance is
  // 1 / U_cc^2, what its squared error costs.
  bool search = false;
  SearchOptions search_options = {};
  // Share of the target's correction by the float model, see above: 1 is all of
  // it. Needs Gram::AddPair, or `residual`.
  double correction = 0;
  // [outputs, inputs], or no rows: mean of e x^T, where e is what the output
  // lacks besides, on the tokens of the Gram. Outputs that are added to a
  // residual stream lack what the stream lacks so far.
  MatrixView<const float> residual = {};
  // Rounds of coordinate descent behind it (refine.h), on scales and codes.
  int refinements = 0;
};

struct GptqResult {
  QuantizedMatrix matrix;
  double damping_used = 0;
  bool fell_back_to_nearest = false;
  // Mean squared error of an output on the calibration inputs, d H d^T without
  // damping, d the distance from the target, over at most kLossRows rows spread
  // over the matrix; of this result, and of rounding the weights to nearest
  // with the same `search`.
  double loss = 0;
  double nearest_loss = 0;
  // The sum of all e_c^2: tr(dW H dW^T) with the damped H, of all rows, before
  // any refinement. 0 after a fall back.
  double squared_errors = 0;
};

inline constexpr double kLeastTokenShare = 1.0 / 64;
inline constexpr int64_t kLossRows = 256;

// weights: [outputs, inputs]. InvalidArgument, saying what: a weight that
// cannot be rounded (CheckWeights), a grid or option that there is not, inputs
// that were not finite, a correction without AddPair.
// REQUIRES: gram.inputs() is the matrix's, Finish was called.
absl::StatusOr<GptqResult> QuantizeGptq(MatrixView<const float> weights,
                                        const Gram& gram,
                                        const GptqOptions& options,
                                        ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_GPTQ_H_
