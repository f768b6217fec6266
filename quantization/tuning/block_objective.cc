#include "quantization/tuning/block_objective.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/tuning/trained_block.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Floats that a token takes, forward and backward: Block's intermediates and
// their gradients, the input, and the target that becomes the gradient.
int64_t FloatsOfToken(const DecoderConfig& config,
                      const BlockWeights<float>& weights) {
  return 9 * config.hidden + 2 * (config.qkv_dim() + config.q_dim()) +
         2 * (weights[LinearId::kUp].outputs + config.ffn);
}

// `target` becomes factor * dLoss/dOutput of the squared distance; returns the
// squared distance of a row.
double ReplaceByGradient(const float* output, int64_t count, float factor,
                         float* target) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float off = output[i] - target[i];
    sum += static_cast<double>(off) * off;
    target[i] = factor * off;
  }
  return sum;
}

}  // namespace

BlockObjective::BlockObjective(const TrainedBlock& trained,
                               GemmPrecision precision, ThreadPool& pool,
                               size_t activation_bytes)
    : inputs_(*trained.inputs),
      targets_(*trained.targets),
      block_(*trained.config, trained.layer, inputs_.length(), precision) {
  const int64_t window_bytes =
      inputs_.length() * FloatsOfToken(*trained.config, *trained.weights) *
      static_cast<int64_t>(sizeof(float));
  windows_at_once_ = std::max<int64_t>(
      1, static_cast<int64_t>(activation_bytes) / window_bytes);
  const int64_t fixed = std::min(kFixedWindows, inputs_.windows());
  for (int64_t i = 0; i < fixed; ++i) {
    fixed_.push_back(i * inputs_.windows() / fixed);
  }
  for (size_t i = 0; i < kLinearCount; ++i) {
    gradients_.want_weights[i] = trained.grids[i].has_value();
  }
  block_.SetWeights(*trained.weights, /*gradients=*/true, pool);
}

MatrixView<float> BlockObjective::LoadInputs(absl::Span<const int64_t> windows,
                                             ThreadPool& pool) {
  const int64_t length = inputs_.length();
  const int64_t count = static_cast<int64_t>(windows.size());
  const MatrixView<float> x = x_.Resize(count * length, inputs_.hidden());
  for (int64_t i = 0; i < count; ++i) {
    inputs_.Load(windows[i], x.Rows(i * length, length), pool);
  }
  return x;
}

void BlockObjective::RunPart(absl::Span<const int64_t> windows, int64_t all,
                             std::vector<double>& losses, ThreadPool& pool) {
  const int64_t length = inputs_.length(), hidden = inputs_.hidden();
  const int64_t count = static_cast<int64_t>(windows.size());
  const MatrixView<float> x = LoadInputs(windows, pool);
  const MatrixView<float> dy = dy_.Resize(count * length, hidden);
  for (int64_t i = 0; i < count; ++i) {
    targets_.Load(windows[i], dy.Rows(i * length, length), pool);
  }
  block_.Forward(x, acts_, pool);
  const MatrixView<const float> output = acts_.output();
  const double elements = static_cast<double>(length) * hidden;
  const float factor =
      all == 0 ? 0.0f : static_cast<float>(2.0 / (elements * all));
  std::vector<double> rows(static_cast<size_t>(count * length));
  pool.ParallelFor(count * length, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      rows[i] = ReplaceByGradient(output.row(i), hidden, factor, dy.row(i));
    }
  });
  for (int64_t i = 0; i < count; ++i) {
    const auto first = rows.begin() + i * length;
    losses.push_back(std::accumulate(first, first + length, 0.0) / elements);
  }
  if (all != 0) block_.Backward(x, acts_, dy, gradients_, pool);
}

std::vector<double> BlockObjective::Losses(absl::Span<const int64_t> windows,
                                           ThreadPool& pool) {
  std::vector<double> losses;
  for (size_t i = 0; i < windows.size(); i += windows_at_once_) {
    RunPart(windows.subspan(i, windows_at_once_), /*all=*/0, losses, pool);
  }
  return losses;
}

std::vector<double> BlockObjective::LossesAndGradients(
    absl::Span<const int64_t> windows, ThreadPool& pool) {
  std::vector<double> losses;
  for (size_t i = 0; i < windows.size(); i += windows_at_once_) {
    gradients_.accumulate = i != 0;
    RunPart(windows.subspan(i, windows_at_once_),
            static_cast<int64_t>(windows.size()), losses, pool);
  }
  return losses;
}

double BlockObjective::FixedLoss(ThreadPool& pool) {
  return MeanOf(Losses(fixed_, pool));
}

std::array<std::vector<double>, kLinearCount> BlockObjective::MeanInputs(
    absl::Span<const int64_t> windows, ThreadPool& pool) {
  std::array<std::vector<double>, kLinearCount> means;
  const double tokens = static_cast<double>(inputs_.length()) * windows.size();
  for (size_t i = 0; i < windows.size(); i += windows_at_once_) {
    block_.Forward(LoadInputs(windows.subspan(i, windows_at_once_), pool),
                   acts_, pool, LinearId::kDown);
    for (const LinearId id : kAllLinears) {
      const MatrixView<const float> x = acts_.input(id);
      std::vector<double>& mean = means[static_cast<size_t>(id)];
      mean.resize(static_cast<size_t>(x.cols));
      pool.ParallelFor(x.cols, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = 0; t < x.rows; ++t) {
          for (int64_t j = begin; j < end; ++j) {
            mean[j] += std::abs(x.row(t)[j]) / tokens;
          }
        }
      });
    }
  }
  return means;
}

double MeanOf(absl::Span<const double> losses) {
  CHECK(!losses.empty());
  return std::accumulate(losses.begin(), losses.end(), 0.0) /
         static_cast<double>(losses.size());
}

bool IsCandidate(int64_t done, int64_t iterations) {
  for (const double part : {0.5, 0.7, 0.8, 0.9, 1.0}) {
    if (done == std::llround(part * static_cast<double>(iterations))) {
      return true;
    }
  }
  return false;
}

absl::Status NotFiniteLoss(int64_t layer) {
  return absl::InvalidArgumentError(absl::StrCat(
      "layers.", layer,
      ": the distance of the rounded block's output from the float block's is "
      "no finite number; its weights or its inputs are too large"));
}

}  // namespace nibble
