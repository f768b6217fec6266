// inspect: what a file holds, and whether the engine would take it.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "apps/common/app.h"
#include "apps/common/json.h"
#include "apps/common/model_path.h"
#include "apps/inspect_report.h"
#include "re2/re2.h"

ABSL_FLAG(std::string, tensors, "",
          "list only tensors whose name this regular expression matches");
ABSL_FLAG(std::string, output, "text", "text, or json: one object");

namespace nibble {
namespace {

absl::Status InspectMain(absl::Span<const std::string> positional) {
  if (positional.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unexpected argument '", positional[1], "': one FILE at a time"));
  }
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  std::unique_ptr<RE2> filter;
  if (const std::string pattern = absl::GetFlag(FLAGS_tensors);
      !pattern.empty()) {
    filter = std::make_unique<RE2>(pattern, RE2::Quiet);
    if (!filter->ok()) return FlagError("tensors", pattern, filter->error());
  }
  absl::StatusOr<std::string> path =
      ResolveModelPath(positional.empty() ? "" : positional[0]);
  if (!path.ok()) return path.status();
  absl::StatusOr<Json> report = InspectPath(*path, filter.get());
  if (!report.ok()) return report.status();
  if (output == "json") {
    PrintJsonLine(*report);
  } else {
    std::fputs(InspectText(*report).c_str(), stdout);
  }
  if (ReportIsSound(*report)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(*path, ": a check failed; see the report"));
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv,
      {"inspect",
       "what a file holds, and whether the engine would take it; without FILE, "
       "the bundled model.",
       "[FILE]"},
      nibble::InspectMain);
}
