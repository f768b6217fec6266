#include "kernels/cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

std::optional<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<double> Ratio(absl::string_view quota, absl::string_view period) {
  int64_t quota_us = 0, period_us = 0;  // "max" and -1 mean no quota.
  if (!absl::SimpleAtoi(quota, &quota_us) || quota_us <= 0) return std::nullopt;
  if (!absl::SimpleAtoi(period, &period_us) || period_us <= 0) {
    return std::nullopt;
  }
  return static_cast<double>(quota_us) / static_cast<double>(period_us);
}

// The quota set in one folder of a v2 hierarchy: "QUOTA PERIOD" or "max
// PERIOD".
std::optional<double> QuotaV2(const std::string& folder) {
  const std::optional<std::string> text = ReadSmallFile(folder + "/cpu.max");
  if (!text) return std::nullopt;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  if (fields.size() != 2) return std::nullopt;
  return Ratio(fields[0], fields[1]);
}

std::optional<double> QuotaV1(const std::string& folder) {
  const auto quota = ReadSmallFile(folder + "/cpu.cfs_quota_us");
  const auto period = ReadSmallFile(folder + "/cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return Ratio(*quota, *period);
}

// The tightest quota of `group` ("/a/b") and its parents under `root`.
template <class QuotaOf>
std::optional<double> Tightest(const std::string& root, std::string group,
                               QuotaOf quota_of) {
  std::optional<double> tightest;
  while (true) {
    const std::optional<double> quota = quota_of(absl::StrCat(root, group));
    if (quota) tightest = std::min(*quota, tightest.value_or(*quota));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return tightest;
    group.resize(slash);
  }
}

bool ListsCpuController(absl::string_view controllers) {
  for (absl::string_view name : absl::StrSplit(controllers, ',')) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<double> CgroupCpuQuota(const std::string& membership,
                                     const std::string& mount) {
  const std::optional<std::string> text = ReadSmallFile(membership);
  if (!text) return std::nullopt;
  std::optional<double> tightest;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    // hierarchy-id:controllers:path, with no controllers for v2.
    const std::vector<std::string> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::string group = fields[2] == "/" ? "" : fields[2];
    std::optional<double> quota;
    if (fields[1].empty()) {
      quota = Tightest(mount, group, QuotaV2);
    } else if (ListsCpuController(fields[1])) {
      quota = Tightest(absl::StrCat(mount, "/", fields[1]), group, QuotaV1);
      if (!quota) quota = Tightest(mount + "/cpu", group, QuotaV1);
    }
    if (quota) tightest = std::min(*quota, tightest.value_or(*quota));
  }
  return tightest;
}

}  // namespace nibble
