// The machine as the engine sees it, and what it could do with a model at most.
//
//   DoctorReport report = Examine("/");
//   MeasureLimits(pool, /*quick=*/false, &report);
//   std::fputs(DoctorText(report).c_str(), stdout);
#ifndef NIBBLE_APPS_DOCTOR_REPORT_H_
#define NIBBLE_APPS_DOCTOR_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/benchmark/report.h"
#include "apps/benchmark/system_info.h"
#include "apps/common/json.h"
#include "kernels/thread_pool.h"

namespace nibble {

struct IsaFinding {
  std::string name;
  bool supported = false;
  std::string reason;  // where it is not supported
};

// What a model could do if nothing but the machine's limits held it back.
struct ModelForecast {
  std::string shape;
  int64_t group_size = 0;
  int64_t weight_bytes = 0;              // read for each token
  double decode_milliseconds = 0;        // a token, by bytes and bandwidth
  double prefill_tokens_per_second = 0;  // by multiplies and their peak
};

struct DoctorReport {
  std::string cpu;
  std::vector<IsaFinding> isas;
  std::string isa;      // that kernels use
  std::string isa_why;  // "the best that is supported"
  int affinity_cpus = 0;
  std::optional<double> quota;  // of the control group, in cores
  int cores = 0;                // what both leave
  SystemInfo system;
  int64_t available_bytes = 0;

  // Of MeasureLimits.
  int threads = 0;
  double read_bytes_per_second = 0;
  double one_thread_read_bytes_per_second = 0;
  std::vector<MultiplyPeak> peaks;  // the first is what INT4 products use
  ModelForecast forecast;
};

// All that needs no measuring. `root`, which ends with '/', is where the system
// describes itself.
DoctorReport Examine(const std::string& root);

// Some seconds; with `quick`, little work too, for machines that are emulated.
void MeasureLimits(ThreadPool& pool, bool quick, DoctorReport* report);

Json DoctorJson(const DoctorReport& report);
std::string DoctorText(const DoctorReport& report);

}  // namespace nibble

#endif  // NIBBLE_APPS_DOCTOR_REPORT_H_
