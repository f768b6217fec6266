#include "quantization/rounding/group_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_kernels.h"
#include "tensor/coded_matrix.h"

namespace nibble {
namespace {

// Outside, squares of weights or steps could leave f32's range; FitGroup's grid
// stays.
constexpr float kLeastExtreme = 0x1p-50f;
constexpr float kGreatestExtreme = 0x1p50f;

// Half of the narrowest range tried, in root mean squares: somewhat less than
// what is best for a normal distribution (1.5, 2.1, 2.7) with 2, 3 and 4 bits.
constexpr double kLowestReach[] = {4.0, 1.2, 1.6, 2.0};

// Refits of one grid. Each but the last improves, most groups stop after two.
constexpr int kMostRefits = 8;

// A grid is refitted only if that alone brings its error below this much of the
// best: new codes gain a little more.
constexpr float kRefitMargin = 1.05f;

class GroupSearch {
 public:
  GroupSearch(absl::Span<const float> weights,
              absl::Span<const float> importance, const GridSpec& spec)
      : weights_(weights), importance_(importance), spec_(spec) {
    const auto [min, max] = std::minmax_element(weights.begin(), weights.end());
    min_ = *min;
    max_ = *max;
    if (spec.offset != CodeOffset::kMinimums) {
      min_ = std::min(min_, 0.0f);
      max_ = std::max(max_, 0.0f);
    }
    if (spec.offset == CodeOffset::kSymmetric) return;
    double ones = 0, values = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      ones += importance[i];
      values += static_cast<double>(importance[i]) * weights[i];
    }
    middle_ = static_cast<float>(values / ones);
  }

  float extreme() const { return std::max(-min_, max_); }
  const GroupGrid& best() const { return best_; }

  // Keeps the grid if it is better than the best, and what its codes would have
  // as their best grid.
  void Try(GroupGrid grid) {
    for (int refits = 0; refits < kMostRefits; ++refits) {
      if (grid.scale == 0.0f || !std::isfinite(grid.scale) ||
          !std::isfinite(grid.offset)) {
        return;
      }
      const StepSums sums =
          SumSteps(weights_, importance_, StepsOf(grid, spec_),
                   /*shifts=*/spec_.offset == CodeOffset::kMinimums);
      if (sums.error < error_) {
        error_ = sums.error;
        best_ = grid;
      } else if (refits > 0) {
        return;
      }
      const GroupGrid refit = Refit(grid, sums);
      if (sums.error - Gain(grid, refit, sums) > kRefitMargin * error_) return;
      grid = refit;
    }
  }

  // The least ratio worth trying: a range of as many steps as suit weights of
  // this mean square.
  float LowestRatio() const {
    double ones = 0, squares = 0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const double off = weights_[i] - middle_;
      ones += importance_[i];
      squares += importance_[i] * off * off;
    }
    const double reach = kLowestReach[spec_.bits == 8 ? 0 : spec_.bits - 1];
    const double half_range =
        spec_.offset == CodeOffset::kSymmetric ? extreme() : (max_ - min_) / 2;
    return static_cast<float>(
        std::min(0.9, reach * std::sqrt(squares / ones) / half_range));
  }

  // The grids of a range `ratio` times the one between the extremes.
  void TryRange(float ratio) {
    const float codes = static_cast<float>(spec_.max_code());
    if (spec_.offset == CodeOffset::kSymmetric) {
      const float scale =
          extreme() * ratio /
          static_cast<float>(spec_.bits == 8 ? 127 : spec_.middle_code());
      const float middle = static_cast<float>(spec_.middle_code());
      Try({StoredParameter(scale), middle});
      if (spec_.bits != 8) Try({StoredParameter(-scale), middle});
      return;
    }
    const float scale = StoredParameter(ratio * (max_ - min_) / codes);
    // Narrower ranges lie about the weighted mean.
    const float away = std::min(ratio, 1.0f);
    const float middle = away * 0.5f * (min_ + max_) + (1.0f - away) * middle_;
    const float least = middle - 0.5f * codes * scale;
    if (spec_.offset == CodeOffset::kMinimums) {
      for (const float from : {least, min_, max_ - codes * scale}) {
        Try({scale, StoredParameter(from)});
      }
      return;
    }
    const float zero = std::floor(-least / scale);
    for (const float to : {zero, zero + 1.0f}) {
      Try({scale, std::clamp(to, 0.0f, codes)});
    }
  }

 private:
  // The scale (and minimum) of least squares for the codes behind the sums.
  GroupGrid Refit(const GroupGrid& grid, const StepSums& sums) const {
    const double squares = sums.squares, products = sums.products;
    if (spec_.offset != CodeOffset::kMinimums) {
      return {StoredParameter(products / squares), grid.offset};
    }
    const double ones = sums.ones, steps = sums.steps, values = sums.values;
    const double scale =
        (ones * products - steps * values) / (ones * squares - steps * steps);
    const float stored = StoredParameter(scale);
    return {stored, StoredParameter((values - stored * steps) / ones)};
  }

  // How much less the error is at the refit grid, codes fixed: the quadratic
  // about its minimum, which the refit is but for the rounding.
  float Gain(const GroupGrid& grid, const GroupGrid& refit,
             const StepSums& sums) const {
    const float scale = refit.scale - grid.scale;
    const float gain = scale * scale * sums.squares;
    if (spec_.offset != CodeOffset::kMinimums) return gain;
    const float offset = refit.offset - grid.offset;
    return gain + offset * (2 * scale * sums.steps + offset * sums.ones);
  }

  const absl::Span<const float> weights_;
  const absl::Span<const float> importance_;
  const GridSpec& spec_;
  float min_, max_;
  float middle_ = 0;  // The weighted mean, where ranges need not reach 0.
  GroupGrid best_;
  float error_ = std::numeric_limits<float>::infinity();
};

// Importance as the loops need it: its largest is 1.
std::vector<float> Normalized(absl::Span<const float> importance,
                              size_t count) {
  std::vector<float> result(count, 1.0f);
  if (importance.empty()) return result;
  DCHECK_EQ(importance.size(), count);
  const float most = *std::max_element(importance.begin(), importance.end());
  if (!(most > 0)) return result;
  for (size_t i = 0; i < count; ++i) {
    result[i] = static_cast<float>(static_cast<double>(importance[i]) / most);
  }
  return result;
}

}  // namespace

double WeightedError(absl::Span<const float> weights,
                     absl::Span<const float> importance, const GroupGrid& grid,
                     const GridSpec& spec) {
  std::vector<uint8_t> codes(weights.size());
  EncodeGroup(weights, grid, spec, absl::MakeSpan(codes));
  double error = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double off =
        static_cast<double>(weights[i]) - DecodeWeight(codes[i], grid, spec);
    error += (importance.empty() ? 1.0 : importance[i]) * off * off;
  }
  return error;
}

GroupGrid SearchGroup(absl::Span<const float> weights,
                      absl::Span<const float> importance, const GridSpec& spec,
                      const SearchOptions& options) {
  const GroupGrid fit = FitGroup(weights, spec);
  const std::vector<float> normalized = Normalized(importance, weights.size());
  GroupSearch search(weights, normalized, spec);
  if (!(search.extreme() >= kLeastExtreme &&
        search.extreme() <= kGreatestExtreme)) {
    return fit;
  }
  search.Try(fit);
  const float lowest = search.LowestRatio();
  for (int i = 0; i <= options.steps; ++i) {
    search.TryRange(std::pow(
        lowest, static_cast<float>(i) / static_cast<float>(options.steps)));
  }
  if (spec.bits <= 4) {
    // Ranges of which the extremes take `used` codes only.
    const int most = spec.offset == CodeOffset::kSymmetric ? spec.middle_code()
                                                           : spec.max_code();
    for (int used = most - 1; used > most / 2; --used) {
      search.TryRange(static_cast<float>(most) / static_cast<float>(used));
    }
  }
  return WeightedError(weights, normalized, search.best(), spec) <
                 WeightedError(weights, normalized, fit, spec)
             ? search.best()
             : fit;
}

}  // namespace nibble
