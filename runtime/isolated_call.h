#ifndef NIBBLE_RUNTIME_ISOLATED_CALL_H_
#define NIBBLE_RUNTIME_ISOLATED_CALL_H_

// Runs a function that may loop, exhaust memory or overflow its stack, and
// survives it: in a child process, under limits.
//
//   absl::StatusOr<std::string> text =
//       RunIsolated([&] { return RenderTemplate(source); }, {});
//
// For short work on text from strangers, such as chat templates, whose
// interpreter bounds neither time nor recursion. The child is a fork of one
// thread: `fn` must need no other thread and no lock that another thread may
// hold (glibc's malloc is safe), and what it changes is lost but its result.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace nibble {

struct IsolationLimits {
  int cpu_seconds = 2;               // of the processor, not of the clock
  int64_t memory_bytes = 256 << 20;  // beyond what the process has already
  size_t result_bytes = 16 << 20;
};

// What `fn` returns (of an error: code InvalidArgument and the message).
// ResourceExhausted when it broke a limit or crashed; Internal when the child
// could not be started.
absl::StatusOr<std::string> RunIsolated(
    absl::FunctionRef<absl::StatusOr<std::string>()> fn,
    const IsolationLimits& limits);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_ISOLATED_CALL_H_
