// What the processor offers, and which of it the kernels may use.
//
//   if (absl::Status s = LimitIsa(*ParseIsa("avx2")); !s.ok()) return s;
//   ThreadPool pool(AvailableCores());
//   MatMul(...);                        // now picks rows marked kAvx2 or lower
//
// Every operation of kernels/ keeps a table of variants, each with the ISA it
// needs; the dispatcher takes the last row that ActiveIsa() allows. The active
// ISA is process-wide: set it once at start, before the first kernel runs.
//
// | Isa          | CPUID features                                           |
// |--------------|----------------------------------------------------------|
// | kScalar      | none: the plain C++ reference of each operation          |
// | kAvx2        | AVX2, FMA, F16C, BMI1, BMI2, LZCNT, AES, PCLMUL          |
// | kAvxVnni     | kAvx2 and AVX-VNNI: vpdpbusd on vectors of 256 bits      |
// | kAvx512      | kAvx2 and AVX-512 F, BW, DQ, VL, CD                      |
// | kAvx512Vnni  | kAvx512 and AVX-512 VNNI                                 |
// | kAmx         | kAvx512Vnni, AMX tile, int8, bf16, and the operating     |
// |              | system's permission to use the tiles (AmxStatus())       |
// | kEmulatedAmx | kAvx512: AMX loop nests over tiles emulated in C++       |
//
// Not every processor with kAvx512 has kAvxVnni: the order is one of
// preference. An operation without a row for the active ISA uses the best row
// below it, so kAmx and kEmulatedAmx run AVX-512 rows wherever no AMX kernel
// exists.
#ifndef NIBBLE_KERNELS_CPU_H_
#define NIBBLE_KERNELS_CPU_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// In order of preference, except kEmulatedAmx, which is never the best.
enum class Isa {
  kScalar,
  kAvx2,
  kAvxVnni,
  kAvx512,
  kAvx512Vnni,
  kAmx,
  kEmulatedAmx,
};

inline constexpr Isa kAllIsas[] = {
    Isa::kScalar,     Isa::kAvx2, Isa::kAvxVnni,    Isa::kAvx512,
    Isa::kAvx512Vnni, Isa::kAmx,  Isa::kEmulatedAmx};

// "scalar", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx", "emulated_amx".
absl::string_view IsaName(Isa isa);

// The reverse of IsaName; "best" is BestIsa(). InvalidArgument lists the names.
absl::StatusOr<Isa> ParseIsa(absl::string_view name);

// True if both this processor and this build can run kernels of `isa`. A build
// that pins one ISA (--config=avx2) holds no kernels above it.
bool CpuSupports(Isa isa);

// OK if kAmx is supported; else FailedPrecondition with the reason: what the
// processor, the build or the operating system lacks. The operating system is
// asked for its permission once per process, at the first question of any kind
// about ISAs.
const absl::Status& AmxStatus();

// "" if `isa` is supported, else what is missing: "the processor lacks
// avx512_vnni", "this build is for one instruction set, which is not this one",
// or AmxStatus()'s message.
std::string WhyUnsupported(Isa isa);

// The best supported ISA.
Isa BestIsa();

// The ISA that dispatch is limited to now; BestIsa() until LimitIsa is called.
Isa ActiveIsa();

// True if a table row that needs `needed` may run: it is supported and not
// above the active ISA.
bool IsaAllowed(Isa needed);

// The same for a row compiled for one of Highway's targets (HWY_AVX2, ...),
// which may need more than its Isa says: HWY_AVX3_ZEN4 and HWY_AVX3_SPR, rows
// of kAvx512Vnni, also need AVX512_BF16. Target 0 stands for the reference.
bool HighwayTargetAllowed(int64_t target);

// The ISA that rows compiled for a Highway target are listed under.
Isa IsaOfHighwayTarget(int64_t target);

// Limits dispatch to `isa` and what lies below it, for the tables of operations
// and for HWY_DYNAMIC_DISPATCH alike. Not thread-safe: no kernel may be
// running. FailedPrecondition, and no change, if the ISA is not supported.
absl::Status LimitIsa(Isa isa);

// Cores this process may use: its affinity mask, further limited by cgroup CPU
// quotas (rounded up); at least 1.
int AvailableCores();

// The model name the processor reports, or "unknown".
std::string CpuModelName();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_CPU_H_
