#include "runtime/isolated_call.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace nibble {
namespace {

// What the child sends is one of these and then a text.
constexpr char kResult = 'r';
constexpr char kError = 'e';

// A child that waits on a lock burns no processor time: it gets this much of
// the clock for each second of its processor limit, on a busy machine too.
constexpr int kClockPerCpuSecond = 10;

// Private writable memory of this process, which is what RLIMIT_DATA counts.
int64_t DataBytes() {
  int64_t pages = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "re")) {
    if (std::fscanf(statm, "%*d %*d %*d %*d %*d %ld", &pages) != 1) pages = 0;
    std::fclose(statm);
  }
  return pages * sysconf(_SC_PAGESIZE);
}

void Limit(int resource, int64_t value) {
  const rlimit limit = {static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  setrlimit(resource, &limit);
}

void EnterLimits(const IsolationLimits& limits, int64_t data_bytes) {
  // A crash is an answer here: no handler prints it, nothing dumps core.
  for (int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU}) {
    signal(number, SIG_DFL);
  }
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_CPU, limits.cpu_seconds);
  if (data_bytes > 0) Limit(RLIMIT_DATA, data_bytes + limits.memory_bytes);
  const int silence = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (silence >= 0) dup2(silence, STDERR_FILENO);
}

bool WriteAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) bytes.remove_prefix(written);
  }
  return true;
}

[[noreturn]] void RunChild(absl::FunctionRef<absl::StatusOr<std::string>()> fn,
                           int fd) {
  const absl::StatusOr<std::string> result = fn();
  const std::string answer =
      result.ok() ? absl::StrCat(absl::string_view(&kResult, 1), *result)
                  : absl::StrCat(absl::string_view(&kError, 1),
                                 result.status().message());
  _exit(WriteAll(fd, answer) ? 0 : 1);
}

// Reads until the child closes its end; false when it takes or sends too much.
bool ReadAll(int fd, const IsolationLimits& limits, std::string* answer) {
  const absl::Time deadline =
      absl::Now() + absl::Seconds(kClockPerCpuSecond * limits.cpu_seconds);
  char buffer[1 << 16];
  while (true) {
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd descriptor = {fd, POLLIN, 0};
    const int ready =
        left > 0 ? poll(&descriptor, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    const ssize_t bytes = read(fd, buffer, sizeof(buffer));
    if (bytes == 0) return true;
    if (bytes < 0 && errno != EINTR) return false;
    if (bytes > 0) answer->append(buffer, bytes);
    if (answer->size() > limits.result_bytes) return false;
  }
}

int WaitFor(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

absl::StatusOr<std::string> RunIsolated(
    absl::FunctionRef<absl::StatusOr<std::string>()> fn,
    const IsolationLimits& limits) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
  }
  const int64_t data_bytes = DataBytes();
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    EnterLimits(limits, data_bytes);
    RunChild(fn, ends[1]);
  }
  const int fork_error = errno;
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    return absl::InternalError(
        absl::StrCat("cannot fork: ", std::strerror(fork_error)));
  }
  std::string answer;
  // A child that broke a limit may have ended well before the signal comes.
  const bool within_limits = ReadAll(ends[0], limits, &answer);
  if (!within_limits) kill(child, SIGKILL);
  close(ends[0]);
  const int status = WaitFor(child);
  if (!within_limits || !WIFEXITED(status) || WEXITSTATUS(status) != 0 ||
      answer.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("took more than ", limits.cpu_seconds, " s, ",
                     limits.memory_bytes >> 20, " MiB, or its stack"));
  }
  if (answer[0] == kError) return absl::InvalidArgumentError(answer.substr(1));
  return answer.substr(1);
}

}  // namespace nibble
