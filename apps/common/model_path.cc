#include "apps/common/model_path.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/cpp/runfiles/runfiles.h"

namespace nibble {
namespace {

using ::bazel::tools::cpp::runfiles::Runfiles;

constexpr absl::string_view kFetchableModel = "smollm2";
constexpr char kBundledFolder[] = "nibble/apps/bundled_model/";
constexpr char kBundledModel[] = "tolstoy-llama.nib";
constexpr char kBundledConfig[] = "config.json";

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

std::string ProgramPath() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, length) : std::string();
}

// The path of a file in the folder of the bundled model.
absl::StatusOr<std::string> BundledFile(absl::string_view name) {
  std::string error;
  const std::unique_ptr<Runfiles> runfiles(
      Runfiles::Create(ProgramPath(), &error));
  if (runfiles != nullptr) {
    std::string path = runfiles->Rlocation(absl::StrCat(kBundledFolder, name));
    if (!path.empty() && Exists(path)) return path;
  }
  return absl::NotFoundError(
      "the bundled model is not beside this program (was the binary copied "
      "without its .runfiles folder?): name a model with --model=PATH");
}

// What tools/fetch_model calls a model: no path, no file name.
bool IsCacheName(absl::string_view model) {
  return model.find_first_of("/.") == absl::string_view::npos;
}

absl::StatusOr<std::string> CachedModel(absl::string_view name) {
  absl::StatusOr<std::string> folder = ModelCacheFolder();
  if (!folder.ok()) return folder.status();
  std::string path = absl::StrCat(*folder, "/", name, ".gguf");
  if (Exists(path)) return path;
  if (name == kFetchableModel) {
    return absl::NotFoundError(absl::StrCat(name, ": ", path,
                                            " is not there yet: run "
                                            "tools/fetch_model ",
                                            name));
  }
  return absl::NotFoundError(
      absl::StrCat(name, ": no such file or folder, and no ", path,
                   " either (tools/fetch_model can get ", kFetchableModel,
                   "; without --model the bundled model runs)"));
}

const char* NonEmptyVariable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

absl::StatusOr<std::string> BundledFloatModelPath() {
  const absl::StatusOr<std::string> config = BundledFile(kBundledConfig);
  if (!config.ok()) return config.status();
  return config->substr(0, config->rfind('/'));
}

absl::StatusOr<std::string> UserCacheFolder() {
  if (const char* cache = NonEmptyVariable("XDG_CACHE_HOME")) {
    return absl::StrCat(cache, "/nibble");
  }
  if (const char* home = NonEmptyVariable("HOME")) {
    return absl::StrCat(home, "/.cache/nibble");
  }
  return absl::NotFoundError(
      "neither XDG_CACHE_HOME nor HOME is set, so there is no folder to cache "
      "models in: set one of them");
}

absl::StatusOr<std::string> ModelCacheFolder() {
  absl::StatusOr<std::string> folder = UserCacheFolder();
  if (!folder.ok()) {
    return absl::NotFoundError(
        "neither XDG_CACHE_HOME nor HOME is set, so there is no cache to look "
        "in: name the model's path with --model=PATH");
  }
  return absl::StrCat(*folder, "/models");
}

absl::StatusOr<std::string> ResolveModelPath(absl::string_view model) {
  if (model.empty()) return BundledFile(kBundledModel);
  std::string path(model);
  struct stat info;
  if (stat(path.c_str(), &info) == 0) return path;
  const int error = errno;
  if (IsCacheName(model)) return CachedModel(model);
  return absl::NotFoundError(absl::StrCat(
      model, ": ", std::strerror(error),
      " (a Hugging Face folder, a .gguf file, a llama2.c .bin "
      "file, or the name ",
      kFetchableModel, "; without --model the bundled model runs)"));
}

std::string ModelDisplayName(absl::string_view model) {
  return model.empty() ? "tolstoy-llama (bundled)" : std::string(model);
}

}  // namespace nibble
