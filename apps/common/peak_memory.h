// The most memory that this process has held so far, mapped files included.
#ifndef NIBBLE_APPS_COMMON_PEAK_MEMORY_H_
#define NIBBLE_APPS_COMMON_PEAK_MEMORY_H_

#include <sys/resource.h>

#include <cstdint>

namespace nibble {

inline int64_t PeakRssBytes() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;  // given in kB
}

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_PEAK_MEMORY_H_
