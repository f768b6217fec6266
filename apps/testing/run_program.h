// Runs one of the programs as a user would, for end-to-end tests.
//
//   ProgramResult result = RunProgram("generate", {"--prompt=Hi"});
//   EXPECT_EQ(result.exit_status, 0) << result.error;
//
// The test lists the program among its data.
#ifndef NIBBLE_APPS_TESTING_RUN_PROGRAM_H_
#define NIBBLE_APPS_TESTING_RUN_PROGRAM_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

struct ProgramResult {
  int exit_status = -1;  // 128 + signal where one ended the program
  std::string output;    // standard output
  std::string error;     // standard error
};

struct ProgramInput {
  std::string standard_input;
  // Where standard output goes instead of into the result: "/dev/full".
  std::string output_path;
  // Variables on top of the test's own.
  std::map<std::string, std::string> environment;
};

// A program that runs. It is killed when the object goes before Wait.
class RunningProgram {
 public:
  // `name` is a target in apps/: "generate".
  RunningProgram(absl::string_view name, const std::vector<std::string>& flags,
                 const ProgramInput& input = {});
  ~RunningProgram();
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  // Returns once the program handles SIGINT itself, or has ended.
  void AwaitInterruptHandler() const;
  void Interrupt() const;
  ProgramResult Wait();

 private:
  std::string folder_;  // of the redirected streams
  pid_t pid_ = -1;
};

ProgramResult RunProgram(absl::string_view name,
                         const std::vector<std::string>& flags,
                         const ProgramInput& input = {});

// A file of the repository among the test's data: "apps/bundled_model".
std::string RunfilePath(absl::string_view path);

// True for one line, newline at its end and nowhere else.
bool IsOneLine(absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_APPS_TESTING_RUN_PROGRAM_H_
