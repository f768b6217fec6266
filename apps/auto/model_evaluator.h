// What the search for a recipe measures models by: quantizes them in a folder
// of work, opens each in memory as the file of it would be opened, and scores
// it.
//
//   ModelEvaluatorOptions options;
//   options.work_folder = "model.nib.search";
//   absl::StatusOr<std::unique_ptr<ModelEvaluator>> evaluator =
//       ModelEvaluator::Create(checkpoint, tasks, calibrate, options, pool);
//   SearchRecipe(recipes, **evaluator, search_options);
//   Write((*evaluator)->Model(result->chosen));
//
// What is measured is what is served: the float model in bf16 with f32
// activations and cache, a quantized one with int8 activations and an int8
// cache, as an engine opens them unless told otherwise. The loss is that of all
// this together.
#ifndef NIBBLE_APPS_AUTO_MODEL_EVALUATOR_H_
#define NIBBLE_APPS_AUTO_MODEL_EVALUATOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibration/windows.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"
#include "runtime/engine.h"
#include "runtime/evaluation/baseline.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// Tokens that the screening scores. The standard error of a mean divergence
// over so many is 1.5% of it (tolstoy-llama, rtn INT4 g128), a sixth of the
// margin by which the search gives a model up (quantization/search/search.cc).
inline constexpr int64_t kScreeningTokens = 8192;

struct ModelEvaluatorOptions {
  EvaluationSetOptions tasks;  // context is found out
  // For recipes that read no text: they are run on it all the same, to see what
  // they damage.
  Recipe::Calibration calibration;
  std::string work_folder;  // for a folder of each trial; made when needed
  std::string program_version;
  const std::atomic<bool>* cancelled = nullptr;  // may be null
  // What is going on, and its share from 0 to 1; may be null.
  std::function<void(absl::string_view what, double share)> progress;
};

class ModelEvaluator : public Evaluator {
 public:
  // Windows for the recipes that need a calibration.
  using Calibrate = std::function<absl::StatusOr<CalibrationWindows>(
      const Recipe::Calibration&)>;

  // Reads the tasks. `checkpoint` is a float model; it and `pool` outlive this
  // object.
  // Errors as LoadEvaluationSet's; FailedPrecondition: no tokenizer.
  static absl::StatusOr<std::unique_ptr<ModelEvaluator>> Create(
      const Checkpoint& checkpoint, absl::Span<const TaskSpec> tasks,
      Calibrate calibrate, const ModelEvaluatorOptions& options,
      ThreadPool& pool);

  // Reads the recipe's calibration text, if it has not been read, so that what
  // is wrong with it is known before the work.
  absl::Status PrepareCalibration(const Recipe& recipe);

  absl::StatusOr<std::vector<Metric>> Baseline() override;
  absl::StatusOr<QuantizedTrial> Quantize(size_t trial,
                                          const Recipe& recipe) override;
  absl::StatusOr<std::vector<Metric>> Measure(size_t trial) override;
  void Discard(size_t trial) override;

  // REQUIRES: Quantize(trial) went well and the trial was not discarded.
  const CalibratedResult& Model(size_t trial) const;

 private:
  ModelEvaluator(const Checkpoint& checkpoint, Calibrate calibrate,
                 const ModelEvaluatorOptions& options, ThreadPool& pool);

  absl::StatusOr<std::unique_ptr<Engine>> OpenEngine(const Checkpoint& model);
  absl::StatusOr<const CalibrationWindows*> Windows(const Recipe& recipe);
  absl::Status Screen(size_t trial, QuantizedTrial* result);
  EvaluationOptions Evaluation(std::string what) const;
  std::string TrialFolder(size_t trial) const;
  std::string CacheFolder() const;

  const Checkpoint& checkpoint_;
  const Calibrate calibrate_;
  const ModelEvaluatorOptions options_;
  ThreadPool& pool_;
  EvaluationSet tasks_;
  EvaluationSet screening_;  // the beginning of each task
  std::optional<nibble::Baseline> screening_baseline_;
  std::map<std::string, CalibrationWindows> windows_;  // by their settings
  std::map<size_t, CalibratedResult> models_;
  // Of the last trial.
  std::unique_ptr<Engine> engine_;
  size_t engine_trial_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_APPS_AUTO_MODEL_EVALUATOR_H_
