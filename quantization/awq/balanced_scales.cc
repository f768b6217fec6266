#include "quantization/awq/balanced_scales.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// With rates from 4 down to 0.2 and steps of at most e^0.5, 60 steps reach
// channels e^3 away and end within 1 % of the least loss.
constexpr int kSteps = 60;
constexpr double kFirstRate = 4;
constexpr double kLastRate = 0.2;
constexpr double kMaxStep = 0.5;
// Of log s: beyond e^8 a channel is dead or alone in its group, and only f16
// scales would notice.
constexpr double kMaxLog = 8;
// Ranges are means over rows: so many say enough.
constexpr int64_t kMaxRows = 512;

struct Pull {
  std::vector<double> force;   // [inputs], sums of A_g B_g (a_j - b_j)
  std::vector<double> weight;  // [inputs], sums of A_g B_g
};

// Adds to shares [inputs of the group] what each input is of the range of one
// row's group, and returns the square of that range.
double AddRangeShares(const float* weights, absl::Span<const double> scales,
                      const GridSpec& spec, absl::Span<double> shares) {
  double low = 0;
  double high = 0;
  size_t lowest = 0;
  size_t highest = 0;
  const bool from_zero = spec.offset != CodeOffset::kMinimums;
  if (!from_zero) low = high = weights[0] * scales[0];
  for (size_t j = 0; j < scales.size(); ++j) {
    const double w = weights[j] * scales[j];
    if (w < low) {
      low = w;
      lowest = j;
    }
    if (w > high) {
      high = w;
      highest = j;
    }
  }
  if (spec.bits == 8 || spec.offset == CodeOffset::kSymmetric) {
    const double extreme = std::max(high, -low);
    shares[high > -low ? highest : lowest] += extreme * extreme;
    return extreme * extreme;
  }
  // d range^2 / d log s_j is 2 range |w_j s_j| at either end.
  const double range = high - low;
  shares[highest] += range * high;
  shares[lowest] -= range * low;
  return range * range;
}

// The rows of one group of inputs. scales: [inputs]. Writes to the group's own
// elements of `pull` alone.
void AddPull(const RoundedLinear& linear, int64_t group,
             absl::Span<const double> scales, Pull& pull) {
  const MatrixView<const float>& weights = linear.weights;
  const int64_t size = linear.spec.group_inputs(weights.cols);
  const int64_t first = group * size;
  const size_t count =
      static_cast<size_t>(std::min(size, weights.cols - first));
  const absl::Span<const double> own =
      scales.subspan(static_cast<size_t>(first), count);
  std::vector<double> errors(count);  // v_j / s_j^2
  std::vector<double> shares(count);
  double error = 0;
  for (size_t j = 0; j < count; ++j) {
    const int64_t input = first + static_cast<int64_t>(j);
    errors[j] = linear.importance(input) / (own[j] * own[j]);
    error += errors[j];
  }
  const int64_t rows = std::min(weights.rows, kMaxRows);
  double range = 0;
  for (int64_t i = 0; i < rows; ++i) {
    range += AddRangeShares(weights.row(i * weights.rows / rows) + first, own,
                            linear.spec, absl::MakeSpan(shares));
  }
  const double loss = error * range * static_cast<double>(weights.rows) /
                      static_cast<double>(rows);
  if (!(loss > 0) || !std::isfinite(loss)) return;
  for (size_t j = 0; j < count; ++j) {
    const size_t input = static_cast<size_t>(first) + j;
    pull.force[input] += loss * (errors[j] / error - shares[j] / range);
    pull.weight[input] += loss;
  }
}

// Moves log s of every free scale.
void Step(const FoldablePair& pair, const Pull& pull, double rate,
          std::vector<double>& logs) {
  std::vector<double> force(logs.size());
  std::vector<double> weight(logs.size());
  for (size_t j = 0; j < pull.force.size(); ++j) {
    const size_t scale = static_cast<size_t>(pair.scale_of_input[j]);
    force[scale] += pull.force[j];
    weight[scale] += pull.weight[j];
  }
  for (size_t k = 0; k < logs.size(); ++k) {
    if (!(weight[k] > 0)) continue;
    const double step = rate * force[k] / weight[k];
    logs[k] += std::min(std::max(step, -kMaxStep), kMaxStep);
    logs[k] = std::min(std::max(logs[k], -kMaxLog), kMaxLog);
  }
}

}  // namespace

std::vector<float> BalanceScales(const FoldablePair& pair,
                                 absl::Span<const RoundedLinear> linears,
                                 std::vector<float> start, ThreadPool& pool) {
  const size_t inputs = static_cast<size_t>(pair.inputs);
  std::vector<double> logs(start.size());
  for (size_t k = 0; k < logs.size(); ++k) {
    logs[k] = std::log(double{start[k]});
  }
  std::vector<double> scales(inputs);
  for (int t = 0; t < kSteps; ++t) {
    for (size_t j = 0; j < inputs; ++j) {
      scales[j] = std::exp(logs[static_cast<size_t>(pair.scale_of_input[j])]);
    }
    Pull pull{std::vector<double>(inputs), std::vector<double>(inputs)};
    for (const RoundedLinear& linear : linears) {
      pool.ParallelFor(linear.spec.groups(pair.inputs),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t g = begin; g < end; ++g) {
                           AddPull(linear, g, scales, pull);
                         }
                       });
    }
    const double left = 1 - static_cast<double>(t) / (kSteps - 1);
    Step(pair, pull, kLastRate + (kFirstRate - kLastRate) * left, logs);
  }
  for (size_t k = 0; k < logs.size(); ++k) {
    start[k] = static_cast<float>(std::exp(logs[k]));
  }
  return start;
}

}  // namespace nibble
