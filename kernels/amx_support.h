// Whether this process may use AMX tiles, and if not, why.
//
//   absl::Status status = AmxStatusOf(ThisAmxMachine());
//
// Three sides must agree: the processor (CPUID leaf 7: AMX-TILE, AMX-INT8,
// AMX-BF16), the operating system, which must save tiles when it switches tasks
// (XCR0 bits 17 and 18), and Linux, which saves the 8 KiB of tile data only for
// processes that ask for it and may refuse: sandboxes filter the system call,
// and it fails where a thread's alternate signal stack is too small to hold the
// tiles. Without the permission the first tile instruction is SIGILL.
// "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1,
// chapter 18; Linux, Documentation/arch/x86/xstate.rst.
#ifndef NIBBLE_KERNELS_AMX_SUPPORT_H_
#define NIBBLE_KERNELS_AMX_SUPPORT_H_

#include <functional>

#include "absl/status/status.h"

namespace nibble {

// What decides. Tests make their own.
struct AmxMachine {
  bool tile = false;
  bool int8 = false;
  bool bf16 = false;
  bool saved_by_system = false;
  // Asks for the permission, for the whole process: 0 or an errno.
  std::function<int()> request_permission;
};

// The processor and operating system this runs on. Asks for nothing yet.
AmxMachine ThisAmxMachine();

// OK if tiles may be used; else FailedPrecondition with the reason. Asks for
// the permission once, and only where all else is there.
absl::Status AmxStatusOf(const AmxMachine& machine);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_AMX_SUPPORT_H_
