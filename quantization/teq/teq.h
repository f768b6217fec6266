// TEQ (Cheng et al., arXiv 2310.10944): trains a scale for each input channel
// of the linears whose producers can take it over (quantization/folding), so
// that rounding loses less.
//
//   absl::StatusOr<TeqResult> result = TrainTeq(trained, TeqOptions(), pool);
//   const auto pairs = FoldablePairs(config);
//   for (size_t i = 0; i < pairs.size(); ++i) {
//     Fold(pairs[i], result->scales[i], config, weights);
//   }
//
// The paper minimises the whole model's cross-entropy. Here, as SignRound does,
// each block's output is brought near the float block's on the float model's
// inputs: that needs one block in memory, and no labels. The scales a are
// trained as log a, on which a step is a share of the scale, whatever it is.
// With G the gradient by the weights in use, V_ij = round(W a)_ij / a_j, the
// slope is the paper's, rounding taken as the identity, and one that the paper
// leaves out: the step of a group follows the range of its W a.
//
//   dLoss/d(log a_j) = sum_i G_ij (W_ij - V_ij)
//       + sum over groups g of dlog(step_g)/d(log a_j)
//             * sum of G (V - W) in g
//
// Training starts from what is best for the loss among ones, 1 / sqrt(max |W|),
// and powers of the inputs' and weights' magnitudes (AWQ's search, with the
// block's output as the measure). Ones stay a candidate to the end. The same
// options and data give the same bits on any number of threads.
//
// A step of the scales rounds all weights of a channel anew, which moves the
// loss up and down more than it leads downhill. Where GPTQ rounds behind TEQ
// that is no matter: with TeqOptions::residuals the loss is that of the errors
// GPTQ is expected to leave (scaled_matrix.h), which follow the scales
// smoothly, and the slopes, with V what such a weight comes to, are the same.
#ifndef NIBBLE_QUANTIZATION_TEQ_TEQ_H_
#define NIBBLE_QUANTIZATION_TEQ_TEQ_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/teq/channel_scales.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {

struct TeqOptions {
  int64_t iterations = 200;  // 0: the best start
  // Of Adam (0.9, 0.9) on log a, after a warm-up over the first 5% of the
  // iterations; falls linearly to 0.
  double learning_rate = 1e-3;
  int64_t batch = 8;         // windows of an iteration
  uint64_t seed = 1;         // of the order of windows
  bool search_start = true;  // false: starts from ones
  // What another search found, tried in place of the search's own candidates:
  // for each of FoldablePairs(config) [free_scales], or empty; or none at all.
  std::vector<std::vector<float>> start;
  // In the order of LinearId: [inputs] of a linear that GPTQ will round, and
  // that is trained for the errors it leaves (scaled_matrix.h), borrowed;
  // empty: for the nearest codes.
  LinearResiduals residuals = {};
  // Of the products; where it is not set, TrainingPrecision (trained_block.h).
  std::optional<GemmPrecision> precision;
  // Asked before each iteration, unless it is null; true ends with Cancelled.
  std::function<bool()> cancelled;
};

struct TeqResult {
  // [free_scales] for each of FoldablePairs(config): what to give to Fold.
  std::vector<std::vector<float>> scales;
  // On the fixed windows, with the nearest codes or the errors of
  // TeqOptions::residuals: with ones, at the start of the training, and with
  // `scales` (never more than either).
  double identity_loss = 0;
  double start_loss = 0;
  double best_loss = 0;
  int64_t best_iteration = 0;  // steps taken before it; 0: the start, or ones
};

// Pairs with a consumer that has no grid keep ones. InvalidArgument, saying
// what is wrong: an option out of range, sizes that do not fit, or a loss that
// is no finite number with ones. A loss that becomes so later is never the
// best, and ends the training.
absl::StatusOr<TeqResult> TrainTeq(const TrainedBlock& trained,
                                   const TeqOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TEQ_TEQ_H_
