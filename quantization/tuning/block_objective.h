// What block-wise training minimises: how far a block's output is from a
// target, in mean squares, on windows of calibration text.
//
//   BlockObjective objective(trained, GemmPrecision::kBF16, pool);
//   objective.block().SetLinear(LinearId::kUp, rounded, pool);
//   double loss = MeanOf(objective.LossesAndGradients({3, 17, 60}, pool));
//   Use(objective.gradient(LinearId::kUp));     // [outputs, inputs]
//   double fixed = objective.FixedLoss(pool);
//
// Windows are taken a few at a time, so that activations need about
// kActivationBytes at most, or what one window needs. The bits of the results
// do not depend on the number of threads.
#ifndef NIBBLE_QUANTIZATION_TUNING_BLOCK_OBJECTIVE_H_
#define NIBBLE_QUANTIZATION_TUNING_BLOCK_OBJECTIVE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/grow_matrix.h"
#include "quantization/block/hidden_states.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/view.h"

namespace nibble {

// A sequence of 512 tokens through LLaMA-7B's block takes 280 MB, forward and
// backward; all 8 of a batch through SmolLM2-135M's as much.
inline constexpr size_t kActivationBytes = size_t{320} << 20;

class BlockObjective {
 public:
  // FixedLoss looks at this many windows, evenly spread, or at all.
  static constexpr int64_t kFixedWindows = 32;

  // Borrows what `trained` points to. Matrices with a grid get gradients.
  // REQUIRES: CheckTrainedBlock is OK.
  BlockObjective(const TrainedBlock& trained, GemmPrecision precision,
                 ThreadPool& pool, size_t activation_bytes = kActivationBytes);

  Block<float>& block() { return block_; }

  // The mean square over a window's outputs, for each window.
  std::vector<double> Losses(absl::Span<const int64_t> windows,
                             ThreadPool& pool);
  // The same; and the gradients of their mean by the trained matrices.
  std::vector<double> LossesAndGradients(absl::Span<const int64_t> windows,
                                         ThreadPool& pool);
  // [outputs, inputs], the caller's to overwrite.
  MatrixView<float> gradient(LinearId id) { return gradients_[id].view(); }

  // The mean of Losses over the fixed windows.
  double FixedLoss(ThreadPool& pool);
  absl::Span<const int64_t> fixed_windows() const { return fixed_; }

  // The means of |x_j| over the inputs of each linear, on some windows.
  std::array<std::vector<double>, kLinearCount> MeanInputs(
      absl::Span<const int64_t> windows, ThreadPool& pool);

 private:
  // x_ = the inputs of windows.
  MatrixView<float> LoadInputs(absl::Span<const int64_t> windows,
                               ThreadPool& pool);
  // Runs windows forward, and backward if `all` is not 0: the number of windows
  // that the gradient is the mean over.
  void RunPart(absl::Span<const int64_t> windows, int64_t all,
               std::vector<double>& losses, ThreadPool& pool);

  const HiddenStates& inputs_;
  const HiddenStates& targets_;
  Block<float> block_;
  int64_t windows_at_once_ = 1;
  std::vector<int64_t> fixed_;
  BlockActivations<float> acts_;
  BlockGradients<float> gradients_;
  GrowMatrix<float> x_;   // [tokens, hidden]
  GrowMatrix<float> dy_;  // [tokens, hidden]: the target, then the gradient
};

double MeanOf(absl::Span<const double> losses);

// Whether what training has after `done` of its iterations is judged. The rate
// falls to 0, so that but for chance later iterates are the better ones: the
// last is judged, and some before it.
bool IsCandidate(int64_t done, int64_t iterations);

// The error when FixedLoss is no finite number at the start.
absl::Status NotFiniteLoss(int64_t layer);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_BLOCK_OBJECTIVE_H_
