#include "apps/common/app.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {
namespace {

// A failed CHECK has printed its message by the time that it aborts.
void ExitAsProgramFault(int) { _exit(2); }

bool IsOwnFlag(const absl::CommandLineFlag& flag) {
  const std::string file = flag.Filename();
  return absl::StrContains(file, "apps/") && !absl::StrContains(file, "absl");
}

bool WantsHelp(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const absl::string_view arg = argv[i];
    if (arg == "--") return false;
    if (arg == "--help" || arg == "-help" || arg == "-h") return true;
  }
  return false;
}

// `bazel run` starts programs in their runfiles folder.
absl::Status EnterUsersDirectory() {
  const char* directory = std::getenv("BUILD_WORKING_DIRECTORY");
  if (directory == nullptr || chdir(directory) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(directory, ": cannot enter BUILD_WORKING_DIRECTORY"));
}

std::string ShownDefault(const absl::CommandLineFlag& flag) {
  std::string value = flag.DefaultValue();
  if (flag.IsOfType<std::string>() && !value.empty() &&
      absl::StrContains(value, ' ')) {
    value = absl::StrCat("\"", value, "\"");
  }
  return value.empty() ? "none" : value;
}

// Positional arguments (after argv[0]); exits with status 1 on a bad flag.
std::vector<std::string> ParseFlags(int argc, char** argv) {
  std::vector<char*> positional;
  std::vector<absl::UnrecognizedFlag> unrecognized;
  absl::ParseAbseilFlagsOnly(argc, argv, positional, unrecognized);
  if (!unrecognized.empty()) {
    absl::ReportUnrecognizedFlags(unrecognized);
    std::exit(1);
  }
  return std::vector<std::string>(positional.begin() + 1, positional.end());
}

absl::Status RunBody(
    const AppInfo& info, absl::Span<const std::string> positional,
    absl::FunctionRef<absl::Status(absl::Span<const std::string>)> body) {
  if (info.positional.empty() && !positional.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument '", positional[0],
                     "': every argument is a flag, --name=value (see --help)"));
  }
  absl::Status status = EnterUsersDirectory();
  if (status.ok()) status = body(positional);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    status.Update(absl::DataLossError("cannot write to standard output"));
  }
  return status;
}

}  // namespace

int ExitStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return 2;
    default:
      return 1;
  }
}

std::string ErrorLine(absl::string_view program, const absl::Status& status) {
  return absl::StrReplaceAll(absl::StrCat(program, ": ", status.message()),
                             {{"\n", " "}, {"\r", " "}});
}

absl::Status FlagError(absl::string_view flag, absl::string_view value,
                       absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, ": ", problem));
}

std::string HelpText(const AppInfo& info) {
  std::vector<const absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (IsOwnFlag(*flag)) flags.push_back(flag);
  }
  // The program's own flags first, then those it shares with others.
  const auto order = [](const absl::CommandLineFlag* flag) {
    return std::make_pair(absl::StrContains(flag->Filename(), "apps/common/"),
                          std::string(flag->Name()));
  };
  std::sort(flags.begin(), flags.end(),
            [&](auto* a, auto* b) { return order(a) < order(b); });

  std::string text =
      absl::StrCat(info.name, ": ", info.summary, "\nUsage: ", info.name,
                   " [--flag=value ...]", info.positional.empty() ? "" : " ",
                   info.positional, "\n\n");
  for (const absl::CommandLineFlag* flag : flags) {
    absl::StrAppend(&text, "  --", flag->Name(), "  ", flag->Help(),
                    " (default: ", ShownDefault(*flag), ")\n");
  }
  return text;
}

int RunApp(
    int argc, char** argv, const AppInfo& info,
    absl::FunctionRef<absl::Status(absl::Span<const std::string>)> body) {
  std::signal(SIGABRT, ExitAsProgramFault);
  if (WantsHelp(argc, argv)) {
    std::fputs(HelpText(info).c_str(), stdout);
    return 0;
  }
  const std::vector<std::string> positional = ParseFlags(argc, argv);
  const absl::Status status = RunBody(info, positional, body);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", ErrorLine(info.name, status).c_str());
  }
  return ExitStatus(status);
}

}  // namespace nibble
