// --model, which most programs share.
#ifndef NIBBLE_APPS_COMMON_MODEL_FLAG_H_
#define NIBBLE_APPS_COMMON_MODEL_FLAG_H_

#include <string>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"

ABSL_DECLARE_FLAG(std::string, model);

namespace nibble {

// What --model names, or the bundled model; see ResolveModelPath.
absl::StatusOr<std::string> ModelPathFromFlag();

// The same, but of the bundled model the float checkpoint that it was made
// from: for those who round weights themselves.
absl::StatusOr<std::string> FloatModelPathFromFlag();

// As the user knows it, for reports.
std::string ModelNameFromFlag();

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_MODEL_FLAG_H_
