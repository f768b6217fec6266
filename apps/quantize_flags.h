// The command line of `quantize`.
#ifndef NIBBLE_APPS_QUANTIZE_FLAGS_H_
#define NIBBLE_APPS_QUANTIZE_FLAGS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "apps/auto/auto_flags.h"
#include "apps/quantize_recipe.h"
#include "quantization/flow.h"

namespace nibble {

enum class OutputFormat { kNib, kGguf, kGptq };

struct QuantizeRequest {
  OutputFormat format = OutputFormat::kNib;
  // Of the writers; keep_codes where `recipe` is set.
  QuantizationOptions options;
  GivenGrid given;
  // Set: the weights are quantized by quantization/calibrated first.
  std::optional<RecipeRequest> recipe;
  bool resume = false;
  std::string out;     // a folder's without slashes behind it
  std::string report;  // a file for the JSON report; empty: none
  bool json = false;
  int threads = 1;
};

// With --auto, `recipe` is what a search begins with (SearchBaseFromFlags).
// Errors name the flag: values that mean nothing or contradict each other.
absl::StatusOr<QuantizeRequest> QuantizeRequestFromFlags(
    const AutoFlags& automatic);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_FLAGS_H_
