// What `generate` reports about a run, for programs and for people.
#ifndef NIBBLE_APPS_GENERATE_REPORT_H_
#define NIBBLE_APPS_GENERATE_REPORT_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "apps/common/json.h"
#include "runtime/text_generator.h"

namespace nibble {

struct GenerateRun {
  std::string model;
  absl::Span<const int32_t> prompt;
  const Generation* generation;
  absl::Duration load_time;
  int64_t peak_rss_bytes;
  std::string isa;
  int threads;
};

// The object of --output=json. Rates of work that took no time, or did not
// happen, are 0.
Json GenerateJson(const GenerateRun& run);

// One line for a terminal.
std::string GenerateSummary(const GenerateRun& run);

// The most memory this process has held.
int64_t PeakRssBytes();

}  // namespace nibble

#endif  // NIBBLE_APPS_GENERATE_REPORT_H_
