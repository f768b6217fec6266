#include "apps/common/model_flag.h"

#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "apps/common/model_path.h"

ABSL_FLAG(std::string, model, "",
          "a Hugging Face folder, a .gguf file, a llama2.c .bin file, or the "
          "name smollm2; without it the bundled model runs");

namespace nibble {

absl::StatusOr<std::string> ModelPathFromFlag() {
  const std::string model = absl::GetFlag(FLAGS_model);
  absl::StatusOr<std::string> path = ResolveModelPath(model);
  if (path.ok() || model.empty()) return path;
  // The message begins with the model.
  return absl::Status(path.status().code(),
                      absl::StrCat("--model=", path.status().message()));
}

absl::StatusOr<std::string> FloatModelPathFromFlag() {
  return absl::GetFlag(FLAGS_model).empty() ? BundledFloatModelPath()
                                            : ModelPathFromFlag();
}

std::string ModelNameFromFlag() {
  return ModelDisplayName(absl::GetFlag(FLAGS_model));
}

}  // namespace nibble
