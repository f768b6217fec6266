// What the operating system says about the machine, for reports and for the
// size of measurements: caches, NUMA nodes, huge pages, memory.
//
//   const SystemInfo system = ReadSystemInfo("/");
//   const int64_t bytes = 4 * LastLevelCacheBytes(system);
//
// Everything is read below `root`, so that tests can lay out a machine of their
// own. What cannot be read stays empty or 0: no machine is an error.
#ifndef NIBBLE_APPS_BENCHMARK_SYSTEM_INFO_H_
#define NIBBLE_APPS_BENCHMARK_SYSTEM_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct CacheInfo {
  int level = 0;
  std::string type;  // "Data", "Instruction", "Unified"
  int64_t bytes = 0;
  std::string shared_by;  // CPUs, as the kernel lists them: "0-3,8"
};

struct NumaNode {
  int number = 0;
  std::string cpus;          // "0-3,8"
  int64_t memory_bytes = 0;  // 0: unknown
};

struct SystemInfo {
  std::vector<CacheInfo> caches;  // of the first CPU, inner ones first
  std::vector<NumaNode> nodes;    // by number
  // Transparent huge pages: "always", "madvise" or "never"; empty: unknown.
  std::string huge_pages;
  int64_t memory_bytes = 0;
  int online_cpus = 0;
};

// `root` ends with '/'.
SystemInfo ReadSystemInfo(const std::string& root);

// The largest data cache; 0 where none is known.
int64_t LastLevelCacheBytes(const SystemInfo& system);

// How many CPUs a list like "0-3,8" names; 0 for what is no such list.
int CountCpus(const std::string& list);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_SYSTEM_INFO_H_
