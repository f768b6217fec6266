// An operating system that refuses the permission to use tiles: everything
// falls back to the next best ISA, and nothing runs a tile instruction. Each
// case needs a process of its own, because the permission is asked for once and
// never given up.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/amx_support.h"
#include "kernels/cpu.h"

namespace nibble {
namespace {

// A sandbox: arch_prctl fails with EPERM where it asks for a permission.
bool FilterPermissionRequests() {
  constexpr uint32_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kRequestPermission, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {std::size(program), program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Linux's own reason: the tiles would not fit on the alternate signal stack.
bool TakeSmallSignalStack() {
  static char stack[2048 + 1024];
  stack_t small = {};
  small.ss_sp = stack;
  small.ss_size = sizeof(stack);
  return sigaltstack(&small, nullptr) == 0;
}

// Ends the process with status 0 if `refuse` works and dispatch falls back.
[[noreturn]] void ExitAfterRefusal(bool (*refuse)(), const char* reason) {
  const auto expect = [](bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::exit(1);
  };
  expect(refuse(), "the refusal is in place");
  expect(!CpuSupports(Isa::kAmx), "AMX is not supported");
  expect(!IsaAllowed(Isa::kAmx), "AMX rows may not run");
  expect(BestIsa() == Isa::kAvx512Vnni, "the best ISA is the one below");
  expect(ParseIsa("best").value() == Isa::kAvx512Vnni, "and so for --isa");
  expect(!LimitIsa(Isa::kAmx).ok(), "AMX cannot be asked for");
  const std::string why = WhyUnsupported(Isa::kAmx);
  expect(why.find("refused") != std::string::npos, "the message says so");
  expect(why.find(reason) != std::string::npos, "and gives the error");
  std::exit(0);
}

class AmxRefusalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const AmxMachine machine = ThisAmxMachine();
    if (!machine.tile || !machine.saved_by_system) {
      GTEST_SKIP() << "there is no AMX here that could be refused";
    }
  }
};

TEST_F(AmxRefusalTest, SandboxThatFiltersTheCallFallsBack) {
  EXPECT_EXIT(
      ExitAfterRefusal(&FilterPermissionRequests, "Operation not permitted"),
      testing::ExitedWithCode(0), "");
}

TEST_F(AmxRefusalTest, SignalStackTooSmallForTilesFallsBack) {
  EXPECT_EXIT(ExitAfterRefusal(&TakeSmallSignalStack, "No space left"),
              testing::ExitedWithCode(0), "");
}

TEST_F(AmxRefusalTest, WithoutRefusalAmxIsSupported) {
  EXPECT_EXIT(std::exit(CpuSupports(Isa::kAmx) ? 0 : 1),
              testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace nibble
