#include "apps/auto/model_evaluator.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_weights.h"
#include "quantization/calibrated/block_cache.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/calibration/windows.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"
#include "runtime/engine.h"
#include "runtime/engine_options.h"
#include "runtime/evaluation/baseline.h"
#include "runtime/evaluation/evaluation.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/task_result.h"
#include "runtime/load_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

// As many as the calibrated flow reads to measure damage.
constexpr int32_t kDamageWindows = 8;

// Blocks of trials that are given up stay for those to come (the screening's
// models come again, raised ones share blocks) up to the size of as many models
// as this.
constexpr int64_t kCachedModels = 2;

// Of the files in it.
int64_t FolderBytes(const std::string& path) {
  int64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    std::error_code error;
    const auto size = entry.file_size(error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

// What cannot be removed takes room and no more.
void RemoveFolder(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

// The first items of each task, until they have kScreeningTokens.
EvaluationSet Beginning(const EvaluationSet& set) {
  EvaluationSet beginning;
  for (const EvaluationTask& task : set.tasks) {
    EvaluationTask part = {task.spec, {}, task.tokens_per_word};
    int64_t tokens = 0;
    for (const EvaluationItem& item : task.items) {
      if (tokens >= kScreeningTokens) break;
      for (const ScoredSequence& sequence : item.sequences) {
        tokens += sequence.scored();
      }
      part.items.push_back(item);
    }
    beginning.tasks.push_back(std::move(part));
  }
  return beginning;
}

std::vector<Metric> MainMetrics(absl::Span<const TaskResult> results) {
  std::vector<Metric> metrics;
  for (const TaskResult& result : results) {
    const TaskKind kind = result.spec.kind;
    const absl::string_view figure =
        kind == TaskKind::kPerplexity ? "" : " accuracy";
    metrics.push_back({absl::StrCat(result.spec.name, figure),
                       MainMetric(kind, result.metrics), HigherIsBetter(kind)});
  }
  return metrics;
}

// Of the layers' matrices, as a decode step reads them.
void CountBytes(const DecoderWeights& weights, QuantizedTrial* trial) {
  int64_t bytes = 0, count = 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearWeights* linear :
         {&layer.qkv, &layer.attention, &layer.up, &layer.down}) {
      bytes += static_cast<int64_t>(linear->matrix.bytes());
      count += linear->matrix.outputs() * linear->matrix.inputs();
    }
  }
  trial->bits_per_weight =
      8 * static_cast<double>(bytes) / static_cast<double>(count);
  trial->bytes = static_cast<int64_t>(weights.matrix_bytes());
}

}  // namespace

ModelEvaluator::ModelEvaluator(const Checkpoint& checkpoint,
                               Calibrate calibrate,
                               const ModelEvaluatorOptions& options,
                               ThreadPool& pool)
    : checkpoint_(checkpoint),
      calibrate_(std::move(calibrate)),
      options_(options),
      pool_(pool) {}

absl::StatusOr<std::unique_ptr<ModelEvaluator>> ModelEvaluator::Create(
    const Checkpoint& checkpoint, absl::Span<const TaskSpec> tasks,
    Calibrate calibrate, const ModelEvaluatorOptions& options,
    ThreadPool& pool) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadTokenizer(checkpoint);
  if (!tokenizer.ok()) return tokenizer.status();
  if (*tokenizer == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        checkpoint.path, ": has no tokenizer beside it, and tasks are texts"));
  }
  EvaluationSetOptions set_options = options.tasks;
  const absl::StatusOr<int64_t> context =
      ResolveContext(EngineOptions(), checkpoint.config);
  if (!context.ok()) return context.status();
  set_options.context = *context;
  // Of perplexity, where the model takes fewer tokens at once.
  set_options.window = std::min(set_options.window, *context);
  absl::StatusOr<EvaluationSet> set =
      LoadEvaluationSet(tasks, **tokenizer, set_options);
  if (!set.ok()) return set.status();
  auto evaluator = absl::WrapUnique(
      new ModelEvaluator(checkpoint, std::move(calibrate), options, pool));
  evaluator->tasks_ = *std::move(set);
  evaluator->screening_ = Beginning(evaluator->tasks_);
  return evaluator;
}

EvaluationOptions ModelEvaluator::Evaluation(std::string what) const {
  EvaluationOptions options;
  options.cancelled = [cancelled = options_.cancelled] {
    return cancelled != nullptr && cancelled->load();
  };
  if (options_.progress) {
    options.progress = [this, what = std::move(what)](int64_t done,
                                                      int64_t total) {
      options_.progress(what, total > 0 ? static_cast<double>(done) /
                                              static_cast<double>(total)
                                        : 0);
    };
  }
  return options;
}

absl::StatusOr<std::unique_ptr<Engine>> ModelEvaluator::OpenEngine(
    const Checkpoint& model) {
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(model, DecoderOptions(), pool_);
  if (!decoder.ok()) return decoder.status();
  EngineOptions options;
  options.model_path = checkpoint_.path;
  options.threads = pool_.threads();
  return Engine::Create(options, *std::move(decoder), /*tokenizer=*/nullptr);
}

absl::StatusOr<std::vector<Metric>> ModelEvaluator::Baseline() {
  const absl::StatusOr<std::unique_ptr<Engine>> engine =
      OpenEngine(checkpoint_);
  if (!engine.ok()) return engine.status();
  nibble::Baseline::Options screening;
  screening.evaluation = Evaluation("float model, screening");
  absl::StatusOr<nibble::Baseline> baseline =
      nibble::Baseline::Measure(**engine, screening_, screening);
  if (!baseline.ok()) return baseline.status();
  screening_baseline_ = *std::move(baseline);
  const absl::StatusOr<std::vector<TaskResult>> results =
      Evaluate(**engine, tasks_, Evaluation("float model"));
  if (!results.ok()) return results.status();
  return MainMetrics(*results);
}

absl::StatusOr<const CalibrationWindows*> ModelEvaluator::Windows(
    const Recipe& recipe) {
  Recipe::Calibration settings = recipe.calibration();
  if (!recipe.has_calibration()) {
    settings = options_.calibration;
    settings.set_samples(std::min(settings.samples(), kDamageWindows));
  }
  settings.clear_digest();
  const std::string key = settings.SerializeAsString();
  auto it = windows_.find(key);
  if (it == windows_.end()) {
    absl::StatusOr<CalibrationWindows> windows = calibrate_(settings);
    if (!windows.ok()) return windows.status();
    it = windows_.emplace(key, *std::move(windows)).first;
  }
  return &it->second;
}

absl::Status ModelEvaluator::PrepareCalibration(const Recipe& recipe) {
  return Windows(recipe).status();
}

std::string ModelEvaluator::TrialFolder(size_t trial) const {
  return absl::StrCat(options_.work_folder, "/trial-", trial);
}

std::string ModelEvaluator::CacheFolder() const {
  return absl::StrCat(options_.work_folder, "/cache");
}

absl::StatusOr<QuantizedTrial> ModelEvaluator::Quantize(size_t trial,
                                                        const Recipe& recipe) {
  engine_.reset();
  const absl::StatusOr<const CalibrationWindows*> windows = Windows(recipe);
  if (!windows.ok()) return windows.status();
  const std::string name = RecipeName(recipe);
  CalibratedOptions options;
  options.work_folder = TrialFolder(trial);
  options.resume = true;  // where it was interrupted
  options.cache_folder = CacheFolder();
  options.program_version = options_.program_version;
  options.cancelled = options_.cancelled;
  options.measure_damage = true;
  if (options_.progress) {
    options.progress = [&](const CalibratedProgress& progress) {
      options_.progress(name, progress.share);
    };
  }
  absl::StatusOr<CalibratedResult> model =
      QuantizeWithRecipe(checkpoint_, *windows, recipe, options, pool_);
  if (absl::IsFailedPrecondition(model.status())) {
    // Blocks of another search.
    RemoveFolder(options.work_folder);
    model = QuantizeWithRecipe(checkpoint_, *windows, recipe, options, pool_);
  }
  if (!model.ok()) return model.status();
  QuantizedTrial result;
  for (const BlockReport& block : model->report.blocks()) {
    for (const MatrixReport& matrix : block.matrices()) {
      if (!matrix.has_damage() || matrix.bits() == 16) continue;
      result.damage.push_back(
          {matrix.name(), matrix.damage(), matrix.weights()});
    }
  }
  models_.insert_or_assign(trial, *std::move(model));
  const absl::Status status = Screen(trial, &result);
  if (!status.ok()) return status;
  return result;
}

absl::Status ModelEvaluator::Screen(size_t trial, QuantizedTrial* result) {
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      OpenEngine(models_.at(trial).checkpoint);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  engine_trial_ = trial;
  CountBytes(engine_->decoder().weights(), result);
  const absl::StatusOr<std::vector<TaskResult>> results = EvaluateAgainst(
      *engine_, *screening_baseline_, screening_, Evaluation("screening"));
  if (!results.ok()) return results.status();
  double kl = 0, agreed = 0;
  int64_t kl_tokens = 0, tokens = 0;
  for (const TaskResult& task : *results) {
    tokens += task.comparison->tokens;
    agreed += task.comparison->greedy_agreement *
              static_cast<double>(task.comparison->tokens);
    if (task.comparison->kl_tokens == 0) continue;  // its mean is NaN
    kl_tokens += task.comparison->kl_tokens;
    kl += task.comparison->kl_divergence *
          static_cast<double>(task.comparison->kl_tokens);
  }
  if (kl_tokens > 0) {
    result->kl_divergence = kl / static_cast<double>(kl_tokens);
  }
  if (tokens > 0) result->agreement = agreed / static_cast<double>(tokens);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Metric>> ModelEvaluator::Measure(size_t trial) {
  CHECK(engine_ != nullptr && engine_trial_ == trial);
  const absl::StatusOr<std::vector<TaskResult>> results =
      Evaluate(*engine_, tasks_, Evaluation("measuring"));
  if (!results.ok()) return results.status();
  return MainMetrics(*results);
}

void ModelEvaluator::Discard(size_t trial) {
  if (engine_trial_ == trial) engine_.reset();
  models_.erase(trial);
  // The blocks of a trial that was interrupted wait for it to go on.
  if (options_.cancelled != nullptr && options_.cancelled->load()) return;
  const int64_t bytes = FolderBytes(TrialFolder(trial));
  RemoveFolder(TrialFolder(trial));
  TrimBlockCache(CacheFolder(), kCachedModels * bytes);
}

const CalibratedResult& ModelEvaluator::Model(size_t trial) const {
  const auto it = models_.find(trial);
  CHECK(it != models_.end());
  return it->second;
}

}  // namespace nibble
