#include "kernels/cpu.h"

#include <sched.h>

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
#include "kernels/amx_support.h"
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

bool HasAvxVnni() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) != 0;
}

#else

bool HasVnni() { return false; }
bool HasAvxVnni() { return false; }

#endif  // HWY_ARCH_X86

// True if a build for one ISA may use AVX-VNNI, or if this is not one.
#if defined(__AVXVNNI__)
constexpr bool kBuildHasAvxVnni = true;
#else
constexpr bool kBuildHasAvxVnni = !kPinned;
#endif

// Found once, before anything is limited.
struct Detected {
  int64_t targets;  // Highway targets that processor and build share
  bool avx_vnni;
  bool vnni;  // of AVX-512
  absl::Status amx;
};

absl::Status DetectAmx(bool vnni) {
  if (vnni) return AmxStatusOf(ThisAmxMachine());
  if (kPinned) {
    return absl::FailedPreconditionError(
        "this build is for one instruction set, which is not AMX");
  }
  return absl::FailedPreconditionError("the processor lacks AVX-512 VNNI");
}

const Detected& Detect() {
  static const Detected detected = [] {
    Detected d;
    d.targets = hwy::SupportedTargets() & HWY_TARGETS;
    d.vnni = (d.targets & kVnniTargets) != 0 ||
             (!kPinned && (d.targets & HWY_AVX3) != 0 && HasVnni());
    d.avx_vnni =
        kBuildHasAvxVnni && (d.targets & HWY_AVX2) != 0 && HasAvxVnni();
    d.amx = DetectAmx(d.vnni);
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
    case Isa::kAvxVnni:
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
    case Isa::kAvxVnni:
      return "avx_vnni";
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
    case Isa::kAvxVnni:
      return d.avx_vnni;
    case Isa::kAvx512:
      return (d.targets & HWY_AVX3) != 0;
    case Isa::kAvx512Vnni:
      return d.vnni;
    case Isa::kAmx:
      return d.amx.ok();
    case Isa::kEmulatedAmx:
      return (d.targets & kAvx512Targets) != 0;
  }
  return false;
}

const absl::Status& AmxStatus() { return Detect().amx; }

std::string WhyUnsupported(Isa isa) {
  if (CpuSupports(isa)) return "";
  if (isa == Isa::kAmx) return std::string(AmxStatus().message());
  if (kPinned) {
    return "this build is for one instruction set, which is not this one";
  }
  const Isa needed = isa == Isa::kEmulatedAmx ? Isa::kAvx512 : isa;
  return absl::StrCat("the processor lacks ", IsaName(needed));
}

Isa BestIsa() {
  for (Isa isa :
       {Isa::kAmx, Isa::kAvx512Vnni, Isa::kAvx512, Isa::kAvxVnni, Isa::kAvx2}) {
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
  if (const std::string why = WhyUnsupported(isa); !why.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("ISA '", IsaName(isa), "' is not available: ", why,
                     "; choose one of ", SupportedNames()));
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
