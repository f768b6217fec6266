#include "runtime/memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number after `key` in a file of "key number" lines; with an empty key,
// the first number of the file.
std::optional<int64_t> ReadNumber(const std::string& path,
                                  absl::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    absl::string_view rest = line;
    if (rest.substr(0, key.size()) != key) continue;
    rest.remove_prefix(key.size());
    const std::vector<absl::string_view> words =
        absl::StrSplit(rest, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t number;
    if (words.empty() || !absl::SimpleAtoi(words[0], &number)) continue;
    return number;
  }
  return std::nullopt;
}

// The names under which the two versions of cgroups say the same things.
struct CgroupFiles {
  absl::string_view mount;
  absl::string_view limit;
  absl::string_view usage;
  absl::string_view inactive_file;  // in memory.stat
  absl::string_view active_file;
};

constexpr CgroupFiles kVersion2 = {"/sys/fs/cgroup", "/memory.max",
                                   "/memory.current", "inactive_file ",
                                   "active_file "};
constexpr CgroupFiles kVersion1 = {
    "/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
    "total_inactive_file ", "total_active_file "};

// What one group's limit leaves. Cached pages of files count as used, but the
// kernel drops them when memory is short.
int64_t LeftInGroup(const std::string& folder, const CgroupFiles& files) {
  const std::optional<int64_t> limit =
      ReadNumber(absl::StrCat(folder, files.limit), "");
  const std::optional<int64_t> usage =
      ReadNumber(absl::StrCat(folder, files.usage), "");
  if (!limit.has_value() || !usage.has_value()) return kUnlimited;
  const std::string stat = absl::StrCat(folder, "/memory.stat");
  const int64_t cached = ReadNumber(stat, files.inactive_file).value_or(0) +
                         ReadNumber(stat, files.active_file).value_or(0);
  return std::max<int64_t>(0, *limit - *usage + std::min(cached, *usage));
}

// The least of what the group and those above it have left.
int64_t LeftInGroups(const std::string& root, std::string group,
                     const CgroupFiles& files) {
  int64_t left = kUnlimited;
  for (;;) {
    if (group == "/") group.clear();
    left = std::min(left,
                    LeftInGroup(absl::StrCat(root, files.mount, group), files));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return left;
    group.resize(slash);
  }
}

}  // namespace

int64_t AvailableMemoryBytes() { return AvailableMemoryBytesAt(""); }

int64_t AvailableMemoryBytesAt(const std::string& root) {
  int64_t available = kUnlimited;
  const std::optional<int64_t> kilobytes =
      ReadNumber(absl::StrCat(root, "/proc/meminfo"), "MemAvailable:");
  if (kilobytes.has_value()) available = *kilobytes * 1024;

  std::ifstream groups(absl::StrCat(root, "/proc/self/cgroup"));
  std::string line;
  while (std::getline(groups, line)) {
    // "hierarchy:controllers:path"; version 2 is hierarchy 0.
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (parts[0] == "0") {
      available = std::min(available, LeftInGroups(root, parts[2], kVersion2));
    } else if (parts[1] == "memory") {
      available = std::min(available, LeftInGroups(root, parts[2], kVersion1));
    }
  }
  return available;
}

std::string FormatBytes(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (value >= 1e9) return absl::StrFormat("%.1f GB", value / 1e9);
  if (value >= 1e6) return absl::StrFormat("%.0f MB", value / 1e6);
  if (value >= 1e3) return absl::StrFormat("%.0f kB", value / 1e3);
  return absl::StrCat(bytes, " bytes");
}

}  // namespace nibble
