// SignRound (Cheng et al., arXiv 2309.05516): trains, block by block, which way
// every weight is rounded and how far each group's range reaches.
//
//   absl::StatusOr<SignRoundResult> result =
//       TuneSignRound({&config, layer, &weights, &inputs, &targets, grids},
//                     SignRoundOptions(), pool);
//   Use(result->matrices[i], result->start_loss, result->best_loss);
//
// A code is clamp(round(w / s + V) + z) with s and z from the range
// [alpha * min, beta * max]; V begins at 0, alpha and beta at 1 and stay within
// 0 and 1. The loss is the mean square distance of the block's output, on the
// inputs that the quantized model will give it, from the float block's output
// on the float model's inputs. Every step moves each variable by the learning
// rate against the sign of its gradient; the rate falls linearly to 0. Which
// iterates may be the result, and by what they are judged:
// docs/quantization.md.
//
// Norms and biases are not trained. The same options and data give the same
// bits on any number of threads.
#ifndef NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_H_
#define NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {

struct SignRoundOptions {
  int64_t iterations = 200;  // 0: the better start
  // Of shifts, in steps of the grid, and of ratios. Not set: 1 / iterations,
  // with which a shift can just pass half a step.
  std::optional<double> learning_rate;
  int64_t batch = 8;  // windows of a step
  uint64_t seed = 1;  // of the order of windows
  bool tune_range = true;
  // Share of the past in the running mean of gradients whose signs are
  // followed. The paper has 0, where every batch has a full vote;
  // docs/quantization.md has what that costs.
  double momentum = 0.9;
  // Where training starts, by LinearId; null: rounded to nearest. They are
  // candidates for the result, too. Shifts reach two steps from the weights,
  // so training starts a little off one that goes further.
  std::array<const QuantizedMatrix*, kLinearCount> starts = {};
  // Of the products; not set: TrainingPrecision's.
  std::optional<GemmPrecision> precision;
  // Asked before each iteration, unless it is null; true ends with Cancelled.
  std::function<bool()> cancelled;
};

// A quarter of the iterations, at a rate that lets shifts go a quarter as far.
inline SignRoundOptions LightSignRound() {
  SignRoundOptions options;
  options.iterations = 50;
  options.learning_rate = 5e-3;
  return options;
}

struct SignRoundResult {
  // Empty where no grid was given.
  std::array<QuantizedMatrix, kLinearCount> matrices;
  // On the fixed windows: rounded to nearest, and as it is now (never more, nor
  // more than that of the starts).
  double start_loss = 0;
  double best_loss = 0;
  int64_t best_iteration = 0;  // steps taken before it; 0: a start
  // Fewer than asked for where training went so far from the best start by half
  // of them that it would not come back.
  int64_t iterations = 0;
};

// InvalidArgument, saying what is wrong: an option out of range, sizes that do
// not fit, or a loss that is no finite number from the start. A loss that
// becomes so later ends the training with the best result before.
absl::StatusOr<SignRoundResult> TuneSignRound(const TrainedBlock& block,
                                              const SignRoundOptions& options,
                                              ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SIGNROUND_SIGNROUND_H_
