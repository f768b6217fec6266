#include "quantization/signround/signround.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/signround/tuned_matrix.h"
#include "quantization/tuning/batch_order.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/fake_quant.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// From half of the iterations to their end, on which a quarter of the way lies,
// losses were seen to fall by 47% at most: with this many times that of the
// best start, training ends there (docs/quantization.md).
constexpr double kHopelessLoss = 2;

absl::Status CheckOptions(const SignRoundOptions& options) {
  if (options.iterations < 0 || options.batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SignRound with ", options.iterations, " iterations of ", options.batch,
        " windows: iterations must be 0 or more, windows 1 or more"));
  }
  // A rate of 1 moves a shift to the end of its range in one step.
  const double rate = options.learning_rate.value_or(0.005);
  if (!(rate > 0.0 && rate <= 1.0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SignRound's learning rate ", rate, ": it must be above 0, at most 1"));
  }
  if (!(options.momentum >= 0.0 && options.momentum < 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("SignRound's momentum ", options.momentum,
                     ": it must be at least 0 and below 1"));
  }
  return absl::OkStatus();
}

// Steps that fall linearly to 0. Shifts are whole numbers, so their steps are
// the differences of the rounded path: no part of it is lost.
class Schedule {
 public:
  explicit Schedule(const SignRoundOptions& options)
      : iterations_(static_cast<double>(options.iterations)),
        rate_(options.learning_rate.value_or(1.0 / iterations_)),
        tune_range_(options.tune_range),
        momentum_(static_cast<float>(options.momentum)) {}

  TunedMatrix::Step StepAt(int64_t iteration) const {
    const double i = static_cast<double>(iteration);
    const auto path = [&](double steps) {
      return std::lround(rate_ * kShiftOne *
                         (steps - steps * (steps - 1) / (2 * iterations_)));
    };
    TunedMatrix::Step step;
    step.shift = static_cast<int>(path(i + 1) - path(i));
    if (tune_range_) {
      step.range = static_cast<float>(rate_ * (1.0 - i / iterations_));
    }
    step.momentum = momentum_;
    return step;
  }

 private:
  const double iterations_;
  const double rate_;
  const bool tune_range_;
  const float momentum_;
};

// REQUIRES: of the same spec and size, without input order.
void Copy(const QuantizedMatrix& from, QuantizedMatrix& to) {
  std::copy(from.codes.begin(), from.codes.end(), to.codes.begin());
  std::copy(from.scales.begin(), from.scales.end(), to.scales.begin());
  std::copy(from.offsets.begin(), from.offsets.end(), to.offsets.begin());
}

class Trainer {
 public:
  Trainer(const TrainedBlock& trained, const SignRoundOptions& options,
          ThreadPool& pool)
      : pool_(pool),
        objective_(trained,
                   options.precision.value_or(TrainingPrecision(trained.grids)),
                   pool) {
    for (size_t i = 0; i < kLinearCount; ++i) {
      if (!trained.grids[i].has_value()) continue;
      const MatrixView<const float> weights =
          trained.weights->linears[i].view();
      TunedMatrix& matrix =
          matrices_[i].emplace(weights, *trained.grids[i], pool);
      result_.matrices[i] = matrix.MakeResult();
      Apply(i, weights.rows, weights.cols);
    }
  }

  // Judges what other methods have made, and brings the matrices there. False
  // where their loss is no finite number.
  bool StartFrom(
      const std::array<const QuantizedMatrix*, kLinearCount>& starts) {
    for (size_t i = 0; i < kLinearCount; ++i) {
      if (!matrices_[i] || starts[i] == nullptr) continue;
      Array<float> memory(starts[i]->codes.size());
      const MatrixView<float> values(memory.data(), starts[i]->outputs,
                                     starts[i]->inputs);
      Dequantize(*starts[i], values, pool_);
      objective_.block().SetLinear(kAllLinears[i], values, pool_);
    }
    const bool better = JudgeBlock(0);
    for (size_t i = 0; i < kLinearCount; ++i) {
      if (!matrices_[i] || starts[i] == nullptr) continue;
      if (better) Copy(*starts[i], result_.matrices[i]);
      matrices_[i]->StartFrom(*starts[i], pool_);
      Apply(i, starts[i]->outputs, starts[i]->inputs);
    }
    return std::isfinite(loss_);
  }

  // Judges what the matrices are now; false where that is no finite number.
  bool Judge(int64_t iteration) {
    if (!JudgeBlock(iteration)) return std::isfinite(loss_);
    for (size_t i = 0; i < kLinearCount; ++i) {
      if (matrices_[i]) matrices_[i]->Encode(result_.matrices[i], pool_);
    }
    return true;
  }

  // Of what was judged last.
  bool IsHopeless() const { return loss_ > kHopelessLoss * result_.best_loss; }

  // False where the loss is no finite number.
  bool Descend(absl::Span<const int64_t> windows,
               const TunedMatrix::Step& step) {
    ++result_.iterations;
    const double loss = MeanOf(objective_.LossesAndGradients(windows, pool_));
    if (!std::isfinite(loss)) return false;
    for (size_t i = 0; i < kLinearCount; ++i) {
      if (!matrices_[i]) continue;
      const MatrixView<float> values = objective_.gradient(kAllLinears[i]);
      matrices_[i]->Descend(step, values, pool_);
      objective_.block().SetLinear(kAllLinears[i], values, pool_);
    }
    return true;
  }

  SignRoundResult TakeResult() { return std::move(result_); }

 private:
  // Whether what the block is now is the best so far.
  bool JudgeBlock(int64_t iteration) {
    loss_ = objective_.FixedLoss(pool_);
    if (!judged_) result_.start_loss = loss_;
    if (!std::isfinite(loss_) || (judged_ && !(loss_ < result_.best_loss))) {
      return false;
    }
    judged_ = true;
    result_.best_loss = loss_;
    result_.best_iteration = iteration;
    return true;
  }

  // Gives the block what matrix i is before there are gradients.
  void Apply(size_t i, int64_t rows, int64_t cols) {
    Array<float> memory(static_cast<size_t>(rows * cols));
    const MatrixView<float> values(memory.data(), rows, cols);
    matrices_[i]->Decode(values, pool_);
    objective_.block().SetLinear(kAllLinears[i], values, pool_);
  }

  ThreadPool& pool_;
  BlockObjective objective_;
  bool judged_ = false;
  double loss_ = 0;  // that was judged last
  std::array<std::optional<TunedMatrix>, kLinearCount> matrices_;
  SignRoundResult result_;
};

}  // namespace

absl::StatusOr<SignRoundResult> TuneSignRound(const TrainedBlock& trained,
                                              const SignRoundOptions& options,
                                              ThreadPool& pool) {
  absl::Status status = CheckOptions(options);
  if (status.ok()) status = CheckTrainedBlock(trained, pool);
  if (!status.ok()) return status;

  Trainer trainer(trained, options, pool);
  if (!trainer.Judge(0)) {
    return NotFiniteLoss(trained.layer);
  }
  for (const QuantizedMatrix* start : options.starts) {
    if (start == nullptr) continue;
    if (!trainer.StartFrom(options.starts)) return trainer.TakeResult();
    break;
  }
  const Schedule schedule(options);
  BatchOrder order(trained.inputs->windows(), options.batch, options.seed);
  for (int64_t i = 0; i < options.iterations; ++i) {
    if (options.cancelled != nullptr && options.cancelled()) {
      return absl::CancelledError("SignRound was cancelled");
    }
    if (!trainer.Descend(order.Next(), schedule.StepAt(i))) break;
    if (!IsCandidate(i + 1, options.iterations)) continue;
    if (!trainer.Judge(i + 1) || trainer.IsHopeless()) break;
  }
  return trainer.TakeResult();
}

}  // namespace nibble
