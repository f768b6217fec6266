// Speed of UpperInverseFactor, n^3 / 3 multiplies of doubles, as a share of the
// multiply peak of doubles: half of that of f32, which is measured in turn. One
// thread is timed by its CPU clock, which ignores busy neighbours, more threads
// by the wall clock.
//
//   bazel run //quantization/linalg:cholesky_benchmark
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "quantization/linalg/cholesky.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Seconds of the calling thread, or of everybody.
double Now(bool thread) {
  timespec time;
  clock_gettime(thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec) * 1e-9;
}

// On and above the diagonal: 1 / (1 + distance), which is positive definite.
void Fill(MatrixView<double> h) {
  for (int64_t i = 0; i < h.rows; ++i) {
    for (int64_t j = i; j < h.cols; ++j) {
      h.row(i)[j] = 1.0 / static_cast<double>(1 + j - i);
    }
  }
}

void BM_UpperInverseFactor(benchmark::State& state) {
  const int64_t n = state.range(0);
  const bool alone = state.range(1) == 1;
  ThreadPool pool(alone ? 1 : AvailableCores());
  Array<double> values(n * n);
  const MatrixView<double> h(values.data(), n, n);
  std::vector<double> seconds, peak;
  int64_t done = 0;
  for (auto _ : state) {
    Fill(h);
    const double start = Now(alone);
    CHECK(UpperInverseFactor(h, pool));
    const double end = Now(alone);
    seconds.push_back(end - start);
    state.SetIterationTime(seconds.back());
    TimeMultiplies(MultiplyKind::kF32, int64_t{100'000'000} * pool.threads(),
                   pool, done);
    peak.push_back(Now(alone) - end);
  }
  // Other processes only ever add time.
  const double macs = static_cast<double>(n) * n * n / 3;
  const double rate = macs / *std::min_element(seconds.begin(), seconds.end());
  const double peak_rate = static_cast<double>(done) / 2 /
                           *std::min_element(peak.begin(), peak.end());
  state.counters["GMAC/s"] = rate / 1e9;
  state.counters["peak_GMAC/s"] = peak_rate / 1e9;
  state.counters["share_of_peak"] = rate / peak_rate;
}

BENCHMARK(BM_UpperInverseFactor)
    ->ArgNames({"n", "one_thread"})
    ->ArgsProduct({{576, 1536, 4096, 11008}, {1, 0}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nibble
