#include "quantization/export/output_folder.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(absl::string_view what, const std::string& path,
                    const std::error_code& error) {
  return absl::ErrnoToStatus(error.value(),
                             absl::StrCat("cannot ", what, " folder ", path));
}

}  // namespace

absl::StatusOr<OutputFolder> OutputFolder::Create(const std::string& name) {
  absl::string_view plain = name;
  while (plain.size() > 1 && absl::ConsumeSuffix(&plain, "/")) {
  }
  const std::string target(plain);
  std::error_code error;
  if (fs::exists(target, error) &&
      (!fs::is_directory(target, error) || !fs::is_empty(target, error))) {
    return absl::InvalidArgumentError(
        absl::StrCat(name,
                     ": is there already; give the name of a new folder, or an "
                     "empty one"));
  }
  const std::string path = absl::StrCat(target, ".tmp-", getpid());
  // What a killed run of the same number left.
  fs::remove_all(path, error);
  if (!fs::create_directory(path, error)) return Failed("make", path, error);
  return OutputFolder(target, path);
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  if (!path_.empty()) fs::remove_all(path_, error);
}

absl::Status OutputFolder::Commit() {
  std::error_code error;
  fs::rename(path_, name_, error);  // takes the place of an empty folder
  if (error) return Failed("rename to", name_, error);
  path_.clear();
  return absl::OkStatus();
}

}  // namespace nibble
