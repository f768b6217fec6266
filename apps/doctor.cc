// doctor: the machine as the engine sees it.

#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "apps/common/app.h"
#include "apps/common/engine_flags.h"
#include "apps/common/json.h"
#include "apps/doctor_report.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "runtime/engine.h"

ABSL_FLAG(bool, quick, false,
          "measure with little work, for an emulated machine; the figures mean "
          "less");
ABSL_FLAG(std::string, output, "text", "text, or json: one object");

namespace nibble {
namespace {

absl::Status DoctorMain(absl::Span<const std::string>) {
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  const absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return options.status();
  const absl::Status isa = ApplyIsaFlag();
  if (!isa.ok()) return isa;
  ThreadPool pool(options->threads > 0 ? options->threads : AvailableCores());
  DoctorReport report = Examine("/");
  MeasureLimits(pool, absl::GetFlag(FLAGS_quick), &report);
  if (output == "json") {
    PrintJsonLine(DoctorJson(report));
  } else {
    std::fputs(DoctorText(report).c_str(), stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv,
      {"doctor",
       "the machine as the engine sees it: instruction sets, cores, memory, "
       "and how fast it reads and multiplies."},
      nibble::DoctorMain);
}
