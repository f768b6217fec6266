#ifndef NIBBLE_RUNTIME_MEMORY_H_
#define NIBBLE_RUNTIME_MEMORY_H_

// How much memory this process may still take.
//
//   if (bytes > AvailableMemoryBytes()) return absl::ResourceExhaustedError(..)

#include <cstdint>
#include <string>

namespace nibble {

// MemAvailable of /proc/meminfo, further limited by what the process's cgroup
// (v2 or v1) has left. INT64_MAX where neither can be read.
int64_t AvailableMemoryBytes();

// The same below another root than "/", for tests.
int64_t AvailableMemoryBytesAt(const std::string& root);

// "1.5 GB", "340 MB", "12 kB": decimal units, as memory is sold.
std::string FormatBytes(int64_t bytes);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_MEMORY_H_
