// Prefill by chunk size, and one decode step by depth.
//
//   ./bazelw run //runtime:engine_benchmark
//   NIBBLE_BENCHMARK_MODEL=model.gguf ./bazelw run //runtime:engine_benchmark
//
// Without the variable it runs the bundled model, which fits into a cache: use
// a real one for figures that mean something.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "runtime/engine.h"
#include "runtime/sequence.h"

namespace nibble {
namespace {

std::unique_ptr<Engine> OpenModel(int64_t chunk) {
  EngineOptions options;
  options.model_path = "apps/bundled_model";
  if (const char* path = std::getenv("NIBBLE_BENCHMARK_MODEL")) {
    options.model_path = path;
  }
  options.prefill_chunk = chunk;
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
  CHECK_OK(engine.status());
  return *std::move(engine);
}

void BM_Prefill(benchmark::State& state) {
  const std::unique_ptr<Engine> engine = OpenModel(state.range(0));
  const std::vector<int32_t> prompt(1024, 300);
  for (auto _ : state) {
    absl::StatusOr<std::unique_ptr<Sequence>> sequence = engine->NewSequence();
    CHECK_OK(sequence.status());
    CHECK_OK(engine->Prefill(**sequence, prompt, {}));
  }
  state.SetItemsProcessed(state.iterations() * prompt.size());
}

void BM_Decode(benchmark::State& state) {
  const std::unique_ptr<Engine> engine = OpenModel(0);
  const int64_t depth = state.range(0);
  absl::StatusOr<std::unique_ptr<Sequence>> sequence = engine->NewSequence();
  CHECK_OK(sequence.status());
  const std::vector<int32_t> prompt(depth, 300);
  CHECK_OK(engine->Prefill(**sequence, prompt, {}));
  std::vector<float> logits(engine->vocabulary());
  for (auto _ : state) {
    CHECK_OK(engine->Decode(**sequence, 300, absl::MakeSpan(logits)));
    (*sequence)->Truncate(depth);
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(engine->weight_bytes()));
}

// Real time: the work is on the pool's threads.
BENCHMARK(BM_Prefill)
    ->RangeMultiplier(2)
    ->Range(32, 1024)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_Decode)
    ->Arg(16)
    ->Arg(1000)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace nibble
