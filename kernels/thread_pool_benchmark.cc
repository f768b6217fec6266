// What a parallel region costs: fork, an empty body, join.
//
//   bazel run //kernels:thread_pool_benchmark
//
// "idle_us" is the serial work between two regions: as long as it is shorter
// than the pool's spin the workers are still awake.
#include <algorithm>
#include <chrono>  // NOLINT
#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

void BM_ForkJoin(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const auto idle = std::chrono::microseconds(state.range(1));
  std::vector<double> seconds;
  for (auto _ : state) {
    const Clock::time_point wait = Clock::now() + idle;
    while (Clock::now() < wait) continue;
    const Clock::time_point start = Clock::now();
    pool.ParallelFor(pool.threads(), [](int64_t, int64_t, int thread) {
      benchmark::DoNotOptimize(thread);
    });
    seconds.push_back(
        std::chrono::duration<double>(Clock::now() - start).count());
    state.SetIterationTime(seconds.back());
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2,
                   seconds.end());
  state.counters["median_us"] = seconds[seconds.size() / 2] * 1e6;
}

BENCHMARK(BM_ForkJoin)
    ->ArgNames({"threads", "idle_us"})
    ->ArgsProduct({{1, 2}, {0, 10, 1000}})
    ->Args({AvailableCores(), 0})
    ->UseManualTime()
    ->Iterations(1000)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace nibble

BENCHMARK_MAIN();
