#include "apps/benchmark/system_info.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace nibble {
namespace {

// More than any machine has; they end a walk over numbered folders.
constexpr int kMaxCaches = 64;
constexpr int kMaxCpus = 1 << 16;

// The file without surrounding white space; empty where it cannot be read.
std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::string(absl::StripAsciiWhitespace(text.str()));
}

// "32768K", "2M" or "512"; 0 for anything else.
int64_t ParseSize(absl::string_view text) {
  int64_t unit = 1;
  if (absl::ConsumeSuffix(&text, "K")) {
    unit = int64_t{1} << 10;
  } else if (absl::ConsumeSuffix(&text, "M")) {
    unit = int64_t{1} << 20;
  }
  int64_t number = 0;
  constexpr int64_t kMost = int64_t{1} << 40;
  if (!absl::SimpleAtoi(text, &number) || number < 0 || number > kMost) {
    return 0;
  }
  return number * unit;
}

// The number in the line of `file` that holds `key`, in kB; as bytes.
int64_t MemoryTotal(const std::string& file) {
  std::ifstream lines(file);
  std::string line;
  while (std::getline(lines, line)) {
    const size_t at = line.find("MemTotal:");
    if (at == std::string::npos) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(absl::string_view(line).substr(at),
                       absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kilobytes = 0;
    if (words.size() < 2 || !absl::SimpleAtoi(words[1], &kilobytes)) return 0;
    return kilobytes * 1024;
  }
  return 0;
}

std::vector<CacheInfo> ReadCaches(const std::string& root) {
  std::vector<CacheInfo> caches;
  for (int index = 0; index < kMaxCaches; ++index) {
    const std::string folder = absl::StrCat(
        root, "sys/devices/system/cpu/cpu0/cache/index", index, "/");
    CacheInfo cache;
    if (!absl::SimpleAtoi(ReadLine(folder + "level"), &cache.level)) break;
    cache.type = ReadLine(folder + "type");
    cache.bytes = ParseSize(ReadLine(folder + "size"));
    cache.shared_by = ReadLine(folder + "shared_cpu_list");
    caches.push_back(cache);
  }
  return caches;
}

// The members of a list like "0-3,8", at most kMaxCpus of them.
std::vector<int> ListMembers(const std::string& list) {
  std::vector<int> members;
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) ||
        !absl::SimpleAtoi(ends.back(), &last) || first < 0 || last < first ||
        last - first >= kMaxCpus) {
      return {};
    }
    for (int member = first; member <= last; ++member) {
      members.push_back(member);
    }
  }
  return members;
}

std::vector<NumaNode> ReadNodes(const std::string& root) {
  const std::string folder = absl::StrCat(root, "sys/devices/system/node/");
  std::vector<NumaNode> nodes;
  for (const int number : ListMembers(ReadLine(folder + "online"))) {
    const std::string node_folder = absl::StrCat(folder, "node", number, "/");
    NumaNode node;
    node.number = number;
    node.cpus = ReadLine(node_folder + "cpulist");
    node.memory_bytes = MemoryTotal(node_folder + "meminfo");
    nodes.push_back(node);
  }
  return nodes;
}

// The kernel lists all choices and brackets the one in force.
std::string BracketedWord(absl::string_view line) {
  for (const absl::string_view word : absl::StrSplit(line, ' ')) {
    if (absl::StartsWith(word, "[") && absl::EndsWith(word, "]")) {
      return std::string(word.substr(1, word.size() - 2));
    }
  }
  return "";
}

}  // namespace

SystemInfo ReadSystemInfo(const std::string& root) {
  SystemInfo system;
  system.caches = ReadCaches(root);
  system.nodes = ReadNodes(root);
  system.huge_pages = BracketedWord(ReadLine(
      absl::StrCat(root, "sys/kernel/mm/transparent_hugepage/enabled")));
  system.memory_bytes = MemoryTotal(absl::StrCat(root, "proc/meminfo"));
  system.online_cpus =
      CountCpus(ReadLine(absl::StrCat(root, "sys/devices/system/cpu/online")));
  return system;
}

int64_t LastLevelCacheBytes(const SystemInfo& system) {
  int64_t bytes = 0;
  for (const CacheInfo& cache : system.caches) {
    if (cache.type != "Instruction") bytes = std::max(bytes, cache.bytes);
  }
  return bytes;
}

int CountCpus(const std::string& list) {
  return static_cast<int>(ListMembers(list).size());
}

}  // namespace nibble
