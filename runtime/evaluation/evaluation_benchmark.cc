// What batches and shared beginnings save, on items of the tasks' usual sizes.
//
//   ./bazelw run //runtime/evaluation:evaluation_benchmark
//   NIBBLE_BENCHMARK_MODEL=model.gguf ./bazelw run ...
//
// Without the variable it runs the bundled model, which fits into a cache.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"
#include "runtime/score.h"

namespace nibble {
namespace {

constexpr int64_t kItems = 24;

// Tokens that the sequences of an item share, that each has to itself, and how
// many of these are scored: means over the first items of the test files, with
// SmolLM2's tokenizer.
struct TaskShape {
  TaskKind kind;
  int64_t choices, shared, own, scored;
};
constexpr TaskShape kShapes[] = {{TaskKind::kLambada, 1, 80, 2, 1},
                                 {TaskKind::kHellaSwag, 4, 32, 15, 15},
                                 {TaskKind::kPiqa, 2, 14, 23, 23},
                                 {TaskKind::kWinoGrande, 2, 14, 7, 6}};

enum Mode { kSingle, kBatched, kShared };

std::unique_ptr<Engine> OpenModel() {
  EngineOptions options;
  options.model_path = "apps/bundled_model";
  if (const char* path = std::getenv("NIBBLE_BENCHMARK_MODEL")) {
    options.model_path = path;
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
  CHECK_OK(engine.status());
  return *std::move(engine);
}

EvaluationSet MakeSet(const TaskShape& shape) {
  EvaluationTask task;
  task.spec.kind = shape.kind;
  int32_t seed = 0;
  const auto tokens = [&seed](int64_t count) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i) tokens.push_back(300 + seed++ % 1000);
    return tokens;
  };
  for (int64_t i = 0; i < kItems; ++i) {
    EvaluationItem item;
    const std::vector<int32_t> shared = tokens(shape.shared);
    for (int64_t c = 0; c < shape.choices; ++c) {
      ScoredSequence sequence;
      sequence.tokens = shared;
      const std::vector<int32_t> own = tokens(shape.own);
      sequence.tokens.insert(sequence.tokens.end(), own.begin(), own.end());
      sequence.first = shape.shared + shape.own - shape.scored;
      item.sequences.push_back(std::move(sequence));
    }
    task.items.push_back(std::move(item));
  }
  EvaluationSet set;
  set.tasks.push_back(std::move(task));
  return set;
}

void BM_Items(benchmark::State& state) {
  const TaskShape& shape = kShapes[state.range(0)];
  const Mode mode = static_cast<Mode>(state.range(1));
  const std::unique_ptr<Engine> engine = OpenModel();
  const EvaluationSet set = MakeSet(shape);
  EvaluationOptions options;
  options.share_prefixes = mode == kShared;
  for (auto _ : state) {
    if (mode != kSingle) {
      CHECK_OK(Evaluate(*engine, set, options).status());
      continue;
    }
    for (const EvaluationItem& item : set.tasks[0].items) {
      for (const ScoredSequence& sequence : item.sequences) {
        ScoreOptions single;
        single.first = sequence.first;
        CHECK_OK(ScoreTokens(*engine, sequence.tokens, single).status());
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * kItems);
  state.SetLabel(std::string(TaskKindName(shape.kind)) +
                 (mode == kSingle    ? ", one by one"
                  : mode == kBatched ? ", batched"
                                     : ", batched, beginnings shared"));
}

// A model against itself, and alone, over windows of 512: what comparing costs.
void BM_Windows(benchmark::State& state) {
  const std::unique_ptr<Engine> engine = OpenModel();
  const std::unique_ptr<Engine> reference = OpenModel();
  const TaskShape windows = {TaskKind::kPerplexity, 1, 1, 511, 511};
  EvaluationSet set = MakeSet(windows);
  set.tasks[0].items.resize(4);
  for (auto _ : state) {
    if (state.range(0) == 0) {
      CHECK_OK(Evaluate(*engine, set, {}).status());
    } else {
      CHECK_OK(EvaluateAgainst(*engine, *reference, set, {}).status());
    }
  }
  state.SetItemsProcessed(state.iterations() * 4 * 511);
}

// Real time: the work is on the pool's threads.
BENCHMARK(BM_Items)
    ->ArgsProduct({{0, 1, 2, 3}, {kSingle, kBatched, kShared}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_Windows)
    ->Arg(0)
    ->Arg(1)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace nibble
