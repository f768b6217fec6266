// The machine's limits, sampled between pieces of the work that is measured:
// how fast all threads read memory, and how fast they multiply.
//
//   LimitProbe probe(MultiplyKind::kInt8Dot, ReadBufferBytes(system), pool);
//   for (...) { Work(); probe.Sample(); }
//   const LimitProbe::Rates rates = probe.Take();
//
// A shared machine's bandwidth wanders by half within an hour, so that a limit
// measured once says nothing about work done later.
#ifndef NIBBLE_APPS_BENCHMARK_LIMIT_PROBE_H_
#define NIBBLE_APPS_BENCHMARK_LIMIT_PROBE_H_

#include <cstdint>
#include <vector>

#include "apps/benchmark/report.h"
#include "apps/benchmark/system_info.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"

namespace nibble {

// Enough that next to nothing of the buffer is in a cache when its turn comes
// again: eight times the last-level cache, at least 256 MiB; but at most a
// quarter of the memory that is free.
int64_t ReadBufferBytes(const SystemInfo& system, int64_t available_bytes);

// How long a measurement may take: in time, and in work, since under emulation
// the clock may run as it likes.
struct MultiplyEffort {
  double seconds = 2e-3;  // of each run
  int64_t most_macs = int64_t{1} << 40;
};

// What all threads do of each multiply instruction that the active ISA has: the
// median of a few runs.
std::vector<MultiplyPeak> MeasurePeaks(ThreadPool& pool,
                                       const MultiplyEffort& effort = {});

class LimitProbe {
 public:
  struct Rates {
    double read_bytes_per_second = 0;
    double macs_per_second = 0;
  };

  // Allocates the buffer. `pool` must outlive the probe.
  // REQUIRES: HasMultiply(kind), read_bytes >= 64.
  LimitProbe(MultiplyKind kind, int64_t read_bytes, ThreadPool& pool);

  // Reads the buffer once, and multiplies for about two milliseconds, or a tenth
  // of `work_seconds` if that is more: a short look says little about long work.
  void Sample(double work_seconds = 0);

  // The rates over all samples since the last call. REQUIRES: there was one.
  Rates Take();

  MultiplyKind kind() const { return kind_; }
  int64_t read_bytes() const { return static_cast<int64_t>(buffer_.size()); }

 private:
  const MultiplyKind kind_;
  ThreadPool& pool_;
  const AlignedBuffer buffer_;
  int64_t macs_;  // per sample
  double read_seconds_ = 0;
  int64_t reads_ = 0;
  double multiply_seconds_ = 0;
  int64_t multiplied_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_LIMIT_PROBE_H_
