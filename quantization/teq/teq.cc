#include "quantization/teq/teq.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/teq/channel_scales.h"
#include "quantization/teq/start_scales.h"
#include "quantization/tuning/batch_order.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"

namespace nibble {
namespace {

// Scales stay within 1e-5 and 1e5, as the paper's do from below.
constexpr double kMaxLog = 11.5;

bool StartFits(const TrainedBlock& trained, const TeqOptions& options) {
  if (options.start.empty()) return true;
  const std::vector<FoldablePair> pairs = FoldablePairs(*trained.config);
  if (options.start.size() != pairs.size()) return false;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const std::vector<float>& scales = options.start[i];
    if (!scales.empty() &&
        static_cast<int64_t>(scales.size()) != pairs[i].free_scales) {
      return false;
    }
    for (const float scale : scales) {
      if (!(scale > 0) || !std::isfinite(scale)) return false;
    }
  }
  return true;
}

bool ResidualsFit(const TrainedBlock& trained, const TeqOptions& options) {
  return std::all_of(kAllLinears.begin(), kAllLinears.end(), [&](LinearId id) {
    const size_t size = options.residuals[static_cast<size_t>(id)].size();
    return size == 0 ||
           static_cast<int64_t>(size) == (*trained.weights)[id].inputs;
  });
}

absl::Status CheckOptions(const TrainedBlock& trained,
                          const TeqOptions& options) {
  if (options.iterations < 0 || options.batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "TEQ with ", options.iterations, " iterations of ", options.batch,
        " windows: iterations must be 0 or more, windows 1 or more"));
  }
  if (!(options.learning_rate > 0.0 && options.learning_rate <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("TEQ's learning rate ", options.learning_rate,
                     ": it must be above 0, at most 1"));
  }
  if (!StartFits(trained, options) || !ResidualsFit(trained, options)) {
    return absl::InvalidArgumentError(
        "TEQ's start or residuals do not fit the block: it takes a scale above "
        "0 for each free one of its pairs, and a residual for each input");
  }
  return absl::OkStatus();
}

double RateAt(int64_t iteration, const TeqOptions& options) {
  const double done = static_cast<double>(iteration);
  const double all = static_cast<double>(options.iterations);
  const double warm_up = std::max(1.0, 0.05 * all);
  if (done < warm_up) return options.learning_rate * (done + 1) / warm_up;
  return options.learning_rate * (all - done) / (all - warm_up);
}

// Adam (Kingma and Ba, arXiv 1412.6980) on the logarithms of a pair's scales.
class LogAdam {
 public:
  explicit LogAdam(const std::vector<float>& scales)
      : means_(scales.size()), squares_(scales.size()) {
    for (const float scale : scales) logs_.push_back(std::log(scale));
  }

  // The scales after a step against `slopes`.
  std::vector<float> Step(const std::vector<double>& slopes, double rate) {
    constexpr double kBeta = 0.9;  // of both moments
    constexpr double kEpsilon = 1e-8;
    decay_ *= kBeta;
    std::vector<float> scales;
    for (size_t i = 0; i < slopes.size(); ++i) {
      means_[i] = kBeta * means_[i] + (1 - kBeta) * slopes[i];
      squares_[i] = kBeta * squares_[i] + (1 - kBeta) * slopes[i] * slopes[i];
      const double mean = means_[i] / (1 - decay_);
      const double square = squares_[i] / (1 - decay_);
      logs_[i] =
          std::clamp(logs_[i] - rate * mean / (std::sqrt(square) + kEpsilon),
                     -kMaxLog, kMaxLog);
      scales.push_back(static_cast<float>(std::exp(logs_[i])));
    }
    return scales;
  }

 private:
  double decay_ = 1;
  std::vector<double> logs_;
  std::vector<double> means_;
  std::vector<double> squares_;
};

class Trainer {
 public:
  Trainer(const TrainedBlock& trained, const TeqOptions& options,
          ThreadPool& pool)
      : pool_(pool),
        objective_(trained,
                   options.precision.value_or(TrainingPrecision(trained.grids)),
                   pool),
        scales_(trained, options.residuals, objective_, pool) {}

  // Keeps the present scales if they are the best so far; false where the loss
  // is no finite number.
  bool Judge(int64_t iteration) {
    const double loss = objective_.FixedLoss(pool_);
    if (!std::isfinite(loss)) return false;
    if (result_.scales.empty()) {
      result_.identity_loss = loss;
    } else if (!(loss < result_.best_loss)) {
      return true;
    }
    result_.scales = scales_.all();
    result_.best_loss = loss;
    result_.best_iteration = iteration;
    return true;
  }

  void Start(const TrainedBlock& trained, const TeqOptions& options) {
    if (options.search_start) {
      SearchStart(trained, options.start, objective_, scales_, pool_);
    }
    Judge(0);
    // Of two starts, the better one.
    for (const size_t pair : scales_.free_pairs()) {
      scales_.Set(pair, result_.scales[pair], pool_);
      optimizers_.emplace_back(scales_.scales(pair));
    }
    result_.start_loss = result_.best_loss;
  }

  // False where the loss is no finite number.
  bool Descend(absl::Span<const int64_t> windows, double rate) {
    const double loss = MeanOf(objective_.LossesAndGradients(windows, pool_));
    if (!std::isfinite(loss)) return false;
    // Adam's epsilon is small beside slopes of the relative loss.
    const double unit = result_.start_loss > 0 ? 1.0 / result_.start_loss : 1.0;
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      const size_t pair = scales_.free_pairs()[i];
      std::vector<double> slopes = scales_.Slopes(pair, pool_);
      for (double& slope : slopes) {
        slope = std::isfinite(slope) ? slope * unit : 0.0;
      }
      scales_.Set(pair, optimizers_[i].Step(slopes, rate), pool_);
    }
    return true;
  }

  bool has_pairs() const { return !scales_.free_pairs().empty(); }
  TeqResult TakeResult() { return std::move(result_); }

 private:
  ThreadPool& pool_;
  BlockObjective objective_;
  ChannelScales scales_;
  std::vector<LogAdam> optimizers_;  // of the free pairs
  TeqResult result_;
};

}  // namespace

absl::StatusOr<TeqResult> TrainTeq(const TrainedBlock& trained,
                                   const TeqOptions& options,
                                   ThreadPool& pool) {
  absl::Status status = CheckTrainedBlock(trained, pool);
  if (status.ok()) status = CheckOptions(trained, options);
  if (!status.ok()) return status;

  Trainer trainer(trained, options, pool);
  if (!trainer.Judge(0)) return NotFiniteLoss(trained.layer);
  if (!trainer.has_pairs()) return trainer.TakeResult();
  trainer.Start(trained, options);
  BatchOrder order(trained.inputs->windows(), options.batch, options.seed);
  for (int64_t i = 0; i < options.iterations; ++i) {
    if (options.cancelled != nullptr && options.cancelled()) {
      return absl::CancelledError("TEQ was cancelled");
    }
    if (!trainer.Descend(order.Next(), RateAt(i, options))) break;
    if (IsCandidate(i + 1, options.iterations) && !trainer.Judge(i + 1)) break;
  }
  return trainer.TakeResult();
}

}  // namespace nibble
