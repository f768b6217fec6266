// What `evaluate` reports, for programs and for people.
#ifndef NIBBLE_APPS_EVALUATE_REPORT_H_
#define NIBBLE_APPS_EVALUATE_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "apps/common/json.h"
#include "runtime/evaluation/task_result.h"

namespace nibble {

struct EvaluateRun {
  std::string model;
  std::string against;  // empty: the model alone
  std::vector<TaskResult> results;
  int64_t tokens = 0;  // read by the model
  double seconds = 0.0;
  int threads = 0;
  int64_t peak_rss_bytes = 0;
};

// The object of --output=json. What is not a number (an error of one sample)
// is null.
Json EvaluateJson(const EvaluateRun& run);

// Some lines for a terminal.
std::string EvaluateText(const EvaluateRun& run);

}  // namespace nibble

#endif  // NIBBLE_APPS_EVALUATE_REPORT_H_
