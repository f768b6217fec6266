// What every program does before and after its own job: flags, --help, error
// lines and exit statuses.
//
//   int main(int argc, char** argv) {
//     return nibble::RunApp(argc, argv,
//                           {"score", "Log-probabilities of given tokens."},
//                           [](absl::Span<const std::string> positional) {
//                             return nibble::Score(positional);
//                           });
//   }
//
// Exit statuses: 0 done, 1 bad input or usage, 2 a fault of the program (an
// internal error or a failed CHECK). An error is one line on standard error
// that begins with the program's name.
#ifndef NIBBLE_APPS_COMMON_APP_H_
#define NIBBLE_APPS_COMMON_APP_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {

struct AppInfo {
  // As typed by the user: "generate".
  absl::string_view name;
  // One line for --help.
  absl::string_view summary;
  // What stands behind the flags, "FILE" for instance; empty: nothing may.
  absl::string_view positional = "";
};

// Parses the flags, answers --help, and runs `body` with the positional
// arguments. Relative paths mean what they meant where the user typed them:
// under `bazel run` the working directory becomes $BUILD_WORKING_DIRECTORY.
int RunApp(int argc, char** argv, const AppInfo& info,
           absl::FunctionRef<absl::Status(absl::Span<const std::string>)> body);

// The exit status that stands for `status`: 0, 1 or 2.
int ExitStatus(const absl::Status& status);

// `status` as the one line (without newline) that the user reads.
std::string ErrorLine(absl::string_view program, const absl::Status& status);

// An InvalidArgument error for a flag: "--top_p=2: must be ...".
absl::Status FlagError(absl::string_view flag, absl::string_view value,
                       absl::string_view problem);

// The text of --help: one line per flag of ours, each with its default.
std::string HelpText(const AppInfo& info);

}  // namespace nibble

#endif  // NIBBLE_APPS_COMMON_APP_H_
