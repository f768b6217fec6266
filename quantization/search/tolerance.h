// How much of a metric a quantized model may lose.
//
//   Metric base = {"perplexity", 10.0, /*higher_is_better=*/false};
//   Metric now = {"perplexity", 10.2, /*higher_is_better=*/false};
//   MetricLoss(base, now, ToleranceMode::kRelative);    // 0.02
#ifndef NIBBLE_QUANTIZATION_SEARCH_TOLERANCE_H_
#define NIBBLE_QUANTIZATION_SEARCH_TOLERANCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

struct Metric {
  std::string name;
  double value = 0;
  // Of accuracy it is, of perplexity it is not.
  bool higher_is_better = false;
};

// Losses as a share of the float model's value, or as differences.
enum class ToleranceMode { kRelative, kAbsolute };

// "relative" or "absolute".
absl::StatusOr<ToleranceMode> ParseToleranceMode(absl::string_view name);

// By how much `now` is worse than `base`: below 0 where it is better, NaN where
// either is not finite. REQUIRES: the same name and direction.
double MetricLoss(const Metric& base, const Metric& now, ToleranceMode mode);

// The largest of the losses, since every metric must be within tolerance; NaN
// if one is NaN. REQUIRES: the same metrics in the same order, at least one.
double WorstLoss(const std::vector<Metric>& base,
                 const std::vector<Metric>& now, ToleranceMode mode);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_TOLERANCE_H_
