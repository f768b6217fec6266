#include "quantization/search/tolerance.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

absl::StatusOr<ToleranceMode> ParseToleranceMode(absl::string_view name) {
  if (name == "relative") return ToleranceMode::kRelative;
  if (name == "absolute") return ToleranceMode::kAbsolute;
  return absl::InvalidArgumentError("must be relative or absolute");
}

double MetricLoss(const Metric& base, const Metric& now, ToleranceMode mode) {
  if (!std::isfinite(base.value) || !std::isfinite(now.value)) return kNaN;
  const double loss =
      base.higher_is_better ? base.value - now.value : now.value - base.value;
  // Equal is no loss, also of a base of 0.
  if (mode == ToleranceMode::kAbsolute || loss == 0) return loss;
  return loss / std::abs(base.value);
}

double WorstLoss(const std::vector<Metric>& base,
                 const std::vector<Metric>& now, ToleranceMode mode) {
  CHECK(!base.empty());
  CHECK_EQ(base.size(), now.size());
  double worst = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < base.size(); ++i) {
    const double loss = MetricLoss(base[i], now[i], mode);
    if (std::isnan(loss)) return kNaN;
    worst = std::max(worst, loss);
  }
  return worst;
}

}  // namespace nibble
