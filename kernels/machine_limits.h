// What this machine can do at most, measured: the yardsticks that a kernel's
// speed is given as a share of.
//
//   MachineLimits limits = MeasureMachineLimits(pool);
//   double share = bytes / seconds / limits.read_bytes_per_second;
//
// Both limits use the pool's threads and the active ISA, as kernels do. On a
// machine that others use too, a single figure is worth little: a benchmark
// takes TimeRead or TimeMultiplies in turn with the kernel and compares
// medians.
#ifndef NIBBLE_KERNELS_MACHINE_LIMITS_H_
#define NIBBLE_KERNELS_MACHINE_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"

namespace nibble {

enum class MultiplyKind {
  kF32,      // fused multiply-add of f32
  kBF16Dot,  // VDPBF16PS: two bf16 products added to an f32; TDPBF16PS on AMX
  // The best dot product of bytes: TDPBSSD on AMX, VPDPBUSD, which adds four
  // products to an int32, or below it VPMADDUBSW, whose sums of two are added
  // in 16 bits.
  kInt8Dot,
};

// The instruction that the active ISA has for it, as "vpdpbusd (512 bits)".
const char* MultiplyName(MultiplyKind kind);

// Seconds for all threads to read `buffer` once, each its contiguous share.
// To measure memory, the buffer must be several times the last-level cache.
double TimeRead(absl::Span<const std::byte> buffer, ThreadPool& pool);

// True if the active ISA has the instruction.
bool HasMultiply(MultiplyKind kind);

// Seconds for all threads together to do about `macs` multiplies in registers;
// `done` receives the exact count. REQUIRES: HasMultiply(kind).
double TimeMultiplies(MultiplyKind kind, int64_t macs, ThreadPool& pool,
                      int64_t& done);

struct MachineLimits {
  double read_bytes_per_second = 0;
  double f32_macs_per_second = 0;
  double bf16_macs_per_second = 0;  // 0 without the instruction
  double int8_macs_per_second = 0;
};

// The best of several runs of each; about half a second and 256 MiB.
MachineLimits MeasureMachineLimits(ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MACHINE_LIMITS_H_
