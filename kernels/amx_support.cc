#include "kernels/amx_support.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace nibble {
namespace {

absl::Status Unavailable(const std::string& reason) {
  return absl::FailedPreconditionError(reason);
}

#if defined(__x86_64__)

constexpr uint32_t Bit(int bit) { return uint32_t{1} << bit; }

// XCR0, the register components that the operating system saves; 0 where it
// cannot be read.
uint64_t SavedComponents() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr uint32_t kOsXsave = Bit(27);
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & kOsXsave) == 0) {
    return 0;
  }
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

#endif

int RequestTilePermission() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0
                                                                     : errno;
#else
  return ENOSYS;
#endif
}

}  // namespace

AmxMachine ThisAmxMachine() {
  AmxMachine machine;
  machine.request_permission = &RequestTilePermission;
#if defined(__x86_64__)
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
    machine.bf16 = (edx & Bit(22)) != 0;
    machine.tile = (edx & Bit(24)) != 0;
    machine.int8 = (edx & Bit(25)) != 0;
  }
  constexpr uint64_t kTiles = uint64_t{3} << 17;  // configuration and data
  machine.saved_by_system = (SavedComponents() & kTiles) == kTiles;
#endif
  return machine;
}

absl::Status AmxStatusOf(const AmxMachine& machine) {
  if (!machine.tile || !machine.int8 || !machine.bf16) {
    return Unavailable(
        absl::StrCat("the processor lacks ", !machine.tile   ? "AMX-TILE"
                                             : !machine.int8 ? "AMX-INT8"
                                                             : "AMX-BF16"));
  }
  if (!machine.saved_by_system) {
    return Unavailable(
        "the operating system does not save AMX tiles (XCR0 bits 17 and 18): "
        "Linux does from version 5.16 on");
  }
  if (const int error = machine.request_permission(); error != 0) {
    return Unavailable(absl::StrCat(
        "the operating system refused the permission to use AMX tiles "
        "(arch_prctl: ",
        std::strerror(error),
        "): a sandbox may filter the call, or a thread's alternate signal "
        "stack be too small"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
