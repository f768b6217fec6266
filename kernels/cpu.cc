#include "kernels/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <optional>
#include <thread>  // NOLINT: hardware_concurrency
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "hwy/highway.h"
#include "kernels/cpu_quota.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

namespace nibble {
namespace {

// Highway's targets for processors with at least AVX512_VNNI.
constexpr int64_t kVnniTargets = HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR;
constexpr int64_t kAvx512Targets = HWY_AVX3 | kVnniTargets;

// A build that pins an ISA compiles one target, any other several.
constexpr bool kPinned = (HWY_TARGETS & (HWY_TARGETS - 1)) == 0;

#if HWY_ARCH_X86

bool CpuidBit(uint32_t leaf, char reg, int bit) {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(leaf, 0, &eax, &ebx, &ecx, &edx)) return false;
  const uint32_t word = reg == 'c' ? ecx : edx;
  return ((word >> bit) & 1) != 0;
}

bool HasVnni() { return CpuidBit(7, 'c', 11); }

// Linux saves the 8 KiB of tile data only for processes that ask for it, and
// may refuse; using tiles without permission is SIGILL.
bool HasAmxWithPermission() {
  constexpr int kBf16 = 22, kTile = 24, kInt8 = 25;
  if (!CpuidBit(7, 'd', kBf16) || !CpuidBit(7, 'd', kTile) ||
      !CpuidBit(7, 'd', kInt8)) {
    return false;
  }
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

#else

bool HasVnni() { return false; }
bool HasAmxWithPermission() { return false; }

#endif  // HWY_ARCH_X86

// Found once, before anything is limited.
struct Detected {
  int64_t targets;  // Highway targets that processor and build share
  bool vnni;
  bool amx;
};

const Detected& Detect() {
  static const Detected detected = [] {
    Detected d;
    d.targets = hwy::SupportedTargets() & HWY_TARGETS;
    d.vnni = (d.targets & kVnniTargets) != 0 ||
             (!kPinned && (d.targets & HWY_AVX3) != 0 && HasVnni());
    d.amx = d.vnni && HasAmxWithPermission();
    return d;
  }();
  return detected;
}

// Set by LimitIsa; unset until then.
std::atomic<int>& ActiveSlot() {
  static std::atomic<int> active{-1};
  return active;
}

int64_t TargetsAbove(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return HWY_AVX2 | kAvx512Targets;
    case Isa::kAvx2:
      return kAvx512Targets;
    case Isa::kAvx512:
      return kVnniTargets;
    case Isa::kAvx512Vnni:
    case Isa::kAmx:
    case Isa::kEmulatedAmx:
      return 0;
  }
  return 0;
}

std::string SupportedNames() {
  std::vector<absl::string_view> names;
  for (Isa isa : kAllIsas) {
    if (CpuSupports(isa)) names.push_back(IsaName(isa));
  }
  return absl::StrJoin(names, ", ");
}

int AffinityCores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

absl::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAmx:
      return "amx";
    case Isa::kEmulatedAmx:
      return "emulated_amx";
  }
  return "unknown";
}

absl::StatusOr<Isa> ParseIsa(absl::string_view name) {
  if (name == "best") return BestIsa();
  std::vector<absl::string_view> names;
  for (Isa isa : kAllIsas) {
    if (name == IsaName(isa)) return isa;
    names.push_back(IsaName(isa));
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown ISA '", name,
                                                 "': choose one of best, ",
                                                 absl::StrJoin(names, ", ")));
}

bool CpuSupports(Isa isa) {
  const Detected& d = Detect();
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return (d.targets & HWY_AVX2) != 0;
    case Isa::kAvx512:
      return (d.targets & HWY_AVX3) != 0;
    case Isa::kAvx512Vnni:
      return d.vnni;
    case Isa::kAmx:
      return d.amx;
    case Isa::kEmulatedAmx:
      return (d.targets & kAvx512Targets) != 0;
  }
  return false;
}

Isa BestIsa() {
  for (Isa isa : {Isa::kAmx, Isa::kAvx512Vnni, Isa::kAvx512, Isa::kAvx2}) {
    if (CpuSupports(isa)) return isa;
  }
  return Isa::kScalar;
}

Isa ActiveIsa() {
  const int active = ActiveSlot().load(std::memory_order_relaxed);
  return active < 0 ? BestIsa() : static_cast<Isa>(active);
}

bool IsaAllowed(Isa needed) {
  if (!CpuSupports(needed)) return false;
  const Isa active = ActiveIsa();
  if (active == Isa::kEmulatedAmx) return needed != Isa::kAmx;
  return needed <= active;
}

bool HighwayTargetAllowed(int64_t target) {
  if (target == 0) return true;
  return (Detect().targets & target & ~TargetsAbove(ActiveIsa())) != 0;
}

Isa IsaOfHighwayTarget(int64_t target) {
  if ((target & kVnniTargets) != 0) return Isa::kAvx512Vnni;
  if (target == HWY_AVX3) return Isa::kAvx512;
  if (target == HWY_AVX2) return Isa::kAvx2;
  return Isa::kScalar;
}

absl::Status LimitIsa(Isa isa) {
  if (!CpuSupports(isa)) {
    return absl::FailedPreconditionError(
        absl::StrCat("ISA '", IsaName(isa), "' is not available: this ",
                     kPinned ? "build pins one ISA and has " : "machine has ",
                     SupportedNames()));
  }
  ActiveSlot().store(static_cast<int>(isa), std::memory_order_relaxed);
  hwy::DisableTargets(TargetsAbove(isa));
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return absl::OkStatus();
}

int AvailableCores() {
  int cores = std::max(1, AffinityCores());
  const std::optional<double> quota =
      CgroupCpuQuota("/proc/self/cgroup", "/sys/fs/cgroup");
  if (quota) cores = std::min(cores, static_cast<int>(std::ceil(*quota)));
  return std::max(1, cores);
}

std::string CpuModelName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "unknown";
}

}  // namespace nibble
