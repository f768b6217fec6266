// evaluate: what a model knows, and how far it is from another.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "apps/common/app.h"
#include "apps/common/engine_flags.h"
#include "apps/common/interrupt.h"
#include "apps/common/json.h"
#include "apps/common/model_flag.h"
#include "apps/common/model_path.h"
#include "apps/common/peak_memory.h"
#include "apps/common/progress_bar.h"
#include "apps/evaluate_report.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/task_result.h"
#include "tensor/packed_layout.h"

ABSL_FLAG(std::string, task, "",
          "what to measure: TASK:FILE, and more of them after commas; tasks "
          "are perplexity (a text), lambada, hellaswag, piqa and winogrande "
          "(JSON lines; piqa's x.jsonl has its labels in x-labels.lst)");
ABSL_FLAG(std::optional<int64_t>, limit, std::nullopt,
          "most items of each task, from its start; without it, all");
ABSL_FLAG(
    int64_t, window, 512,
    "tokens of a perplexity window, without the token that begins a text");
ABSL_FLAG(std::string, against, "",
          "model to compare with, item by item and token by token: mean KL "
          "divergence, agreement of first choices, flips");
ABSL_FLAG(std::string, against_weights, "auto",
          "how a float checkpoint at --against is held: auto (bf16), f32 or "
          "bf16");
ABSL_FLAG(std::string, output, "text",
          "what goes to standard output: text, or json: one object");

namespace nibble {
namespace {

// Values of the flags that need no model, which takes long to open.
struct Request {
  std::vector<TaskSpec> tasks;
  EvaluationSetOptions set;
  std::optional<WeightFormat> against_weights;
  bool json = false;
};

absl::StatusOr<Request> RequestFromFlags() {
  Request request;
  absl::StatusOr<std::vector<TaskSpec>> tasks =
      ParseTasks(absl::GetFlag(FLAGS_task));
  if (!tasks.ok()) {
    return FlagError("task", absl::GetFlag(FLAGS_task),
                     tasks.status().message());
  }
  request.tasks = *std::move(tasks);
  if (const auto limit = absl::GetFlag(FLAGS_limit); limit.has_value()) {
    if (*limit < 1) {
      return FlagError("limit", absl::StrCat(*limit), "must be at least 1");
    }
    request.set.limit = *limit;
  }
  request.set.window = absl::GetFlag(FLAGS_window);
  if (request.set.window < 1) {
    return FlagError("window", absl::StrCat(request.set.window),
                     "must be at least 1");
  }
  const std::string weights = absl::GetFlag(FLAGS_against_weights);
  if (weights == "f32") {
    request.against_weights = WeightFormat::kF32;
  } else if (weights == "bf16") {
    request.against_weights = WeightFormat::kBF16;
  } else if (weights != "auto") {
    return FlagError("against_weights", weights, "must be auto, f32 or bf16");
  }
  if (weights != "auto" && absl::GetFlag(FLAGS_against).empty()) {
    return FlagError("against_weights", weights,
                     "has no effect without --against, the model it is about");
  }
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output != "text" && output != "json") {
    return FlagError("output", output, "must be text or json");
  }
  request.json = output == "json";
  return request;
}

// The model of --against, or null.
absl::StatusOr<std::unique_ptr<Engine>> OpenReference(const Request& request) {
  const std::string model = absl::GetFlag(FLAGS_against);
  if (model.empty()) return nullptr;
  absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return options.status();
  absl::StatusOr<std::string> path = ResolveModelPath(model);
  if (!path.ok()) return path.status();
  options->model_path = *std::move(path);
  options->weights = request.against_weights;
  return OpenEngineWithBar(*std::move(options));
}

absl::StatusOr<EvaluationSet> LoadSet(Request& request, const Engine& engine,
                                      const Engine* reference) {
  if (engine.tokenizer() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        engine.path(), ": has no tokenizer beside it, and tasks are texts"));
  }
  request.set.context = engine.context();
  if (reference != nullptr) {
    const absl::Status same = CheckSameTokenizer(engine, *reference);
    if (!same.ok()) return same;
    request.set.context = std::min(engine.context(), reference->context());
  }
  return LoadEvaluationSet(request.tasks, *engine.tokenizer(), request.set);
}

absl::Status EvaluateMain(absl::Span<const std::string>) {
  absl::StatusOr<Request> request = RequestFromFlags();
  if (!request.ok()) return request.status();
  absl::StatusOr<std::unique_ptr<Engine>> engine = OpenEngineFromFlags();
  if (!engine.ok()) return engine.status();
  absl::StatusOr<std::unique_ptr<Engine>> reference = OpenReference(*request);
  if (!reference.ok()) return reference.status();
  const absl::StatusOr<EvaluationSet> set =
      LoadSet(*request, **engine, reference->get());
  if (!set.ok()) return set.status();

  EvaluateRun run;
  run.model = ModelNameFromFlag();
  run.against = absl::GetFlag(FLAGS_against);
  run.threads = (*engine)->pool().threads();
  InterruptScope interrupt;
  ProgressBar bar("evaluating", stderr);
  EvaluationOptions options;
  options.cancelled = [&] { return interrupt.interrupted(); };
  options.progress = [&](int64_t done, int64_t total) {
    run.tokens = done;
    bar.Update(done, total);
  };
  const absl::Time start = absl::Now();
  absl::StatusOr<std::vector<TaskResult>> results =
      *reference == nullptr
          ? Evaluate(**engine, *set, options)
          : EvaluateAgainst(**engine, **reference, *set, options);
  bar.Finish();
  if (absl::IsCancelled(results.status())) {
    return absl::CancelledError("interrupted; there is nothing to report");
  }
  if (!results.ok()) return results.status();
  run.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  run.results = *std::move(results);
  run.peak_rss_bytes = PeakRssBytes();
  if (request->json) {
    PrintJsonLine(EvaluateJson(run));
  } else {
    std::fputs(EvaluateText(run).c_str(), stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv,
      {"evaluate",
       "measures a model: perplexity, LAMBADA, HellaSwag, PIQA, WinoGrande, "
       "alone or against another model."},
      nibble::EvaluateMain);
}
