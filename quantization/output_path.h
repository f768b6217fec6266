// Refuses to write a model over the one that is being read.
#ifndef NIBBLE_QUANTIZATION_OUTPUT_PATH_H_
#define NIBBLE_QUANTIZATION_OUTPUT_PATH_H_

#include <string>

#include "absl/status/status.h"

namespace nibble {

// InvalidArgument when `out` is `model` itself, under whatever name.
absl::Status CheckOutput(const std::string& model, const std::string& out);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_OUTPUT_PATH_H_
