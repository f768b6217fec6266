#include "testing/shared_data.h"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/string_view.h"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

// A file that every test using this library has in its runfiles. There it is a
// symbolic link, whose target lies in the checkout.
constexpr char kAnchor[] = "testing/shared_data.h";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Looks for shared/data in `start` and every folder above it.
std::optional<fs::path> SearchUpwards(fs::path start) {
  std::error_code error;
  for (fs::path folder = std::move(start); !folder.empty();
       folder = folder.parent_path()) {
    const fs::path candidate = folder / "shared" / "data";
    if (fs::is_directory(candidate, error)) return candidate;
    if (folder == folder.root_path()) break;
  }
  return std::nullopt;
}

std::optional<fs::path> FindSharedData() {
  std::error_code error;
  if (const std::string named = Environment("NIBBLE_SHARED_DATA");
      !named.empty()) {
    if (fs::is_directory(named, error)) return fs::path(named);
    return std::nullopt;
  }
  const fs::path anchor = fs::canonical(RunfilePath(kAnchor), error);
  if (!error) {
    if (auto found = SearchUpwards(anchor.parent_path())) return found;
  }
  const fs::path here = fs::current_path(error);
  if (error) return std::nullopt;
  return SearchUpwards(here);
}

}  // namespace

std::optional<std::string> SharedDataPath(absl::string_view relative) {
  const std::optional<fs::path> root = FindSharedData();
  if (!root) return std::nullopt;
  const fs::path path = *root / std::string(relative);
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  return path.string();
}

std::string RunfilePath(absl::string_view relative) {
  const std::string sources = Environment("TEST_SRCDIR");
  if (sources.empty()) return std::string(relative);
  const std::string workspace = Environment("TEST_WORKSPACE");
  return (fs::path(sources) / (workspace.empty() ? "nibble" : workspace) /
          std::string(relative))
      .string();
}

}  // namespace nibble::testing
