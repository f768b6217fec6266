// What one choice of a token costs, over vocabularies and options.
//
//   ./bazelw run //runtime:sampler_benchmark

#include <cstdint>
#include <random>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "runtime/sampler.h"

namespace nibble {
namespace {

void Run(benchmark::State& state, const SamplingOptions& options) {
  const int64_t vocabulary = state.range(0);
  absl::StatusOr<Sampler> sampler = Sampler::Create(options, vocabulary);
  CHECK_OK(sampler.status());
  // Spread like the logits of a language model: a few far above the rest.
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  for (auto _ : state) {
    absl::StatusOr<int32_t> token = sampler->Sample(absl::MakeSpan(logits));
    benchmark::DoNotOptimize(token);
  }
  state.SetItemsProcessed(state.iterations() * vocabulary);
}

SamplingOptions Options(double temperature, int64_t top_k, double top_p,
                        double min_p) {
  SamplingOptions options;
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  return options;
}

void BM_Greedy(benchmark::State& state) { Run(state, Options(0, 0, 1, 0)); }
void BM_Temperature(benchmark::State& state) {
  Run(state, Options(1, 0, 1, 0));
}
void BM_TopK40(benchmark::State& state) { Run(state, Options(1, 40, 1, 0)); }
void BM_TopP95(benchmark::State& state) { Run(state, Options(1, 0, 0.95, 0)); }
void BM_TopK40TopP95(benchmark::State& state) {
  Run(state, Options(1, 40, 0.95, 0));
}
void BM_MinP05(benchmark::State& state) { Run(state, Options(1, 0, 1, 0.05)); }

BENCHMARK(BM_Greedy)->Arg(32000)->Arg(152064);
BENCHMARK(BM_Temperature)->Arg(32000)->Arg(152064);
BENCHMARK(BM_TopK40)->Arg(32000)->Arg(152064);
BENCHMARK(BM_TopP95)->Arg(32000)->Arg(152064);
BENCHMARK(BM_TopK40TopP95)->Arg(32000)->Arg(152064);
BENCHMARK(BM_MinP05)->Arg(32000)->Arg(152064);

}  // namespace
}  // namespace nibble
