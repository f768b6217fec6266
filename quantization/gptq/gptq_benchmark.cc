// Time of GPTQ's parts on one matrix, all threads. "GMAC/s" counts the updates
// alone, outputs * inputs^2 / 2, whatever else QuantizeGptq does: the factor,
// rounding to nearest, both losses.
#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gram.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

constexpr int64_t kTokens = 2048;

void CountMultiplies(benchmark::State& state, int64_t multiplies) {
  state.counters["GMAC/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(multiplies),
                         benchmark::Counter::kIsIterationInvariantRate);
}

void AddToGram(benchmark::State& state) {
  const int64_t inputs = state.range(0);
  ThreadPool pool(AvailableCores());
  const std::vector<float> x =
      testing::RandomValues(3).Uniform(kTokens * inputs, -1, 1);
  Gram gram(inputs);
  for (auto _ : state) gram.Add({x.data(), kTokens, inputs}, pool);
  CountMultiplies(state, kTokens * inputs * (inputs + 1) / 2);
}
BENCHMARK(AddToGram)->Arg(576)->Arg(1536)->Arg(4096)->UseRealTime();

void Quantize(benchmark::State& state) {
  const int64_t outputs = state.range(0), inputs = state.range(1);
  ThreadPool pool(AvailableCores());
  testing::RandomValues random(5);
  const std::vector<float> x = random.Uniform(kTokens * inputs, -1, 1);
  const std::vector<float> w = random.Uniform(outputs * inputs, -0.1f, 0.1f);
  Gram gram(inputs);
  gram.Add({x.data(), kTokens, inputs}, pool);
  gram.Finish(pool);
  GptqOptions options;
  options.spec.group_size = state.range(2);
  options.search = state.range(3) != 0;
  for (auto _ : state) {
    CHECK_OK(QuantizeGptq({w.data(), outputs, inputs}, gram, options, pool)
                 .status());
  }
  CountMultiplies(state, outputs * inputs * inputs / 2);
}
BENCHMARK(Quantize)
    ->ArgNames({"outputs", "inputs", "group", "search"})
    ->Args({1536, 576, 128, 0})
    ->Args({576, 1536, 32, 0})
    ->Args({576, 1536, 32, 1})
    ->Args({4096, 4096, 128, 0})
    ->Args({4096, 4096, 128, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond)
    ->MinTime(0.1);

}  // namespace
}  // namespace nibble
