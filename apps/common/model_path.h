// From what --model says to a path that the engine opens.
//
//   absl::StatusOr<std::string> path = ResolveModelPath("smollm2");
#ifndef NIBBLE_APPS_COMMON_MODEL_PATH_H_
#define NIBBLE_APPS_COMMON_MODEL_PATH_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// - "": the bundled model, among the program's runfiles.
// - a path that exists: itself.
// - a name without slash and dot, such as "smollm2": what `tools/fetch_model
//   smollm2` put into the user's cache,
//   ${XDG_CACHE_HOME:-~/.cache}/nibble/models/smollm2.gguf.
// The errors say what to do.
absl::StatusOr<std::string> ResolveModelPath(absl::string_view model);

// The folder with the float checkpoint that the bundled model was made from.
absl::StatusOr<std::string> BundledFloatModelPath();

// ${XDG_CACHE_HOME:-~/.cache}/nibble, what the programs keep for the user;
// NotFound where neither variable is set.
absl::StatusOr<std::string> UserCacheFolder();

// The folder that tools/fetch_model fills; NotFound where neither
// XDG_CACHE_HOME nor HOME is set.
absl::StatusOr<std::string> ModelCacheFolder();

// What a user knows the model as: "tolstoy-llama (bundled)" for "", otherwise
// `model` as given.
std::string ModelDisplayName(absl::string_view model);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_MODEL_PATH_H_
