// What `quantize` reports, for programs and for people.
#ifndef NIBBLE_APPS_QUANTIZE_REPORT_H_
#define NIBBLE_APPS_QUANTIZE_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "apps/common/json.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/flow.h"

namespace nibble {

// What a recipe did before the file was written.
struct RecipeRun {
  std::string method;  // "awq+gptq"
  std::string name;    // "awq+gptq int4 g32 zeros"
  std::string recipe;  // as text
  CalibratedReport report;
};

struct QuantizeRun {
  std::string model;
  std::string out;
  QuantizationOptions options;
  QuantizationReport report;
  int64_t peak_rss_bytes = 0;
  int threads = 0;
  std::optional<RecipeRun> recipe;
};

// The object of --output=json and --report.
Json QuantizeJson(const QuantizeRun& run);

// A table for a terminal, ending in a line of totals.
std::string QuantizeText(const QuantizeRun& run);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_REPORT_H_
