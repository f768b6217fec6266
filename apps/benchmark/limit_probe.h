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
// best of a few runs, since others on the machine only ever add time.
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

  // Reads the buffer once, and multiplies in pieces of two milliseconds: three,
  // or as many as take a tenth of `work_seconds` if that is more, since a short
  // look says little about long work.
  void Sample(double work_seconds = 0);

  // The median rates since the last call. REQUIRES: there was a sample.
  Rates Take();

  MultiplyKind kind() const { return kind_; }
  int64_t read_bytes() const { return static_cast<int64_t>(buffer_.size()); }

 private:
  const MultiplyKind kind_;
  ThreadPool& pool_;
  const AlignedBuffer buffer_;
  int64_t macs_;                        // per sample
  std::vector<double> read_rates_;      // since Take, one per sample
  std::vector<double> multiply_rates_;  // and one per piece
};

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_LIMIT_PROBE_H_
