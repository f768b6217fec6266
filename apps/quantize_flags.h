// The command line of `quantize`.
#ifndef NIBBLE_APPS_QUANTIZE_FLAGS_H_
#define NIBBLE_APPS_QUANTIZE_FLAGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "quantization/flow.h"

namespace nibble {

enum class OutputFormat { kNib, kGguf, kGptq };

struct QuantizeRequest {
  OutputFormat format = OutputFormat::kNib;
  QuantizationOptions options;
  std::string out;
  std::string report;  // a file for the JSON report; empty: none
  bool json = false;
  int threads = 1;
};

// Errors name the flag: values that mean nothing, that contradict each other,
// and that this version does not support yet.
absl::StatusOr<QuantizeRequest> QuantizeRequestFromFlags();

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_FLAGS_H_
