#include "apps/testing/run_program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tools/cpp/runfiles/runfiles.h"

namespace nibble {
namespace {

using ::bazel::tools::cpp::runfiles::Runfiles;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void Redirect(const std::string& path, int flags, int target) {
  const int fd = open(path.c_str(), flags, 0600);
  if (fd < 0 || dup2(fd, target) < 0) _exit(126);
  close(fd);
}

// True if process `pid` has a handler for `signal_number`, or is gone.
bool HandlesSignalOrEnded(pid_t pid, int signal_number) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("State:\tZ", 0) == 0) return true;
    if (line.rfind("SigCgt:", 0) != 0) continue;
    const uint64_t caught = std::stoull(line.substr(7), nullptr, 16);
    return (caught >> (signal_number - 1)) & 1;
  }
  return true;
}

}  // namespace

RunningProgram::RunningProgram(absl::string_view name,
                               const std::vector<std::string>& flags,
                               const ProgramInput& input) {
  const std::string program = RunfilePath(absl::StrCat("apps/", name));
  std::string pattern = ::testing::TempDir() + "/run_XXXXXX";
  CHECK(mkdtemp(pattern.data()) != nullptr);
  folder_ = pattern;
  std::ofstream(folder_ + "/in", std::ios::binary) << input.standard_input;
  const std::string output =
      input.output_path.empty() ? folder_ + "/out" : input.output_path;

  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& flag : flags) {
    argv.push_back(const_cast<char*>(flag.c_str()));
  }
  argv.push_back(nullptr);

  pid_ = fork();
  CHECK_GE(pid_, 0);
  if (pid_ != 0) return;
  Redirect(folder_ + "/in", O_RDONLY, STDIN_FILENO);
  Redirect(output, O_WRONLY | O_CREAT, STDOUT_FILENO);
  Redirect(folder_ + "/err", O_WRONLY | O_CREAT, STDERR_FILENO);
  for (const auto& [variable, value] : input.environment) {
    setenv(variable.c_str(), value.c_str(), 1);
  }
  execv(program.c_str(), argv.data());
  _exit(127);
}

RunningProgram::~RunningProgram() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void RunningProgram::AwaitInterruptHandler() const {
  while (!HandlesSignalOrEnded(pid_, SIGINT)) {
    absl::SleepFor(absl::Milliseconds(1));
  }
}

void RunningProgram::Interrupt() const { kill(pid_, SIGINT); }

ProgramResult RunningProgram::Wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  ProgramResult result;
  result.exit_status =
      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.output = ReadAll(folder_ + "/out");
  result.error = ReadAll(folder_ + "/err");
  return result;
}

ProgramResult RunProgram(absl::string_view name,
                         const std::vector<std::string>& flags,
                         const ProgramInput& input) {
  return RunningProgram(name, flags, input).Wait();
}

std::string RunfilePath(absl::string_view path) {
  std::string error;
  const std::unique_ptr<Runfiles> runfiles(Runfiles::CreateForTest(&error));
  CHECK(runfiles != nullptr) << error;
  return runfiles->Rlocation(absl::StrCat("nibble/", path));
}

bool IsOneLine(absl::string_view text) {
  return !text.empty() && text.find('\n') == text.size() - 1;
}

}  // namespace nibble
