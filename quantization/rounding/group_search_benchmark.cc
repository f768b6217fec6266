// Time of the search per weight, and what it leaves of the error of the
// extremes ("left"), by steps: groups of normal weights whose importance
// spreads over three decades.
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_search.h"
#include "tensor/coded_matrix.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

constexpr int64_t kGroups = 512;

void SearchGroups(benchmark::State& state) {
  const int64_t size = state.range(2);
  const GridSpec spec = {static_cast<int>(state.range(0)), size,
                         static_cast<CodeOffset>(state.range(1))};
  SearchOptions options;
  options.steps = static_cast<int>(state.range(3));
  testing::RandomValues random(7);
  const std::vector<float> weights = random.Normal(kGroups * size, 0.02f);
  std::vector<float> importance = random.Normal(kGroups * size, 1.5f);
  for (float& value : importance) value = std::exp(value);
  double fitted = 0, found = 0;
  for (auto _ : state) {
    fitted = found = 0;
    for (int64_t g = 0; g < kGroups; ++g) {
      const auto w = absl::MakeSpan(weights).subspan(g * size, size);
      const auto i = absl::MakeSpan(importance).subspan(g * size, size);
      found += WeightedError(w, i, SearchGroup(w, i, spec, options), spec);
      fitted += WeightedError(w, i, FitGroup(w, spec), spec);
    }
  }
  state.counters["left"] = found / fitted;
  state.counters["ns_per_weight"] =
      benchmark::Counter(static_cast<double>(kGroups * size) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate |
                             benchmark::Counter::kInvert);
}
BENCHMARK(SearchGroups)
    ->ArgNames({"bits", "offset", "group", "steps"})
    ->ArgsProduct({{4, 3, 2}, {0, 1, 2}, {32, 128}, {6, 10, 20, 40}})
    ->MinTime(0.02);

}  // namespace
}  // namespace nibble
