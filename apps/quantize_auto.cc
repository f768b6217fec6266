#include "apps/quantize_auto.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "apps/auto/model_evaluator.h"
#include "apps/auto/search_report.h"
#include "apps/common/progress_bar.h"
#include "apps/common/version.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/journal.h"
#include "quantization/search/lattice.h"
#include "quantization/search/search.h"
#include "tensor/io/atomic_file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// The grids to search, as far as the flags and the format leave a choice.
LatticeOptions Lattice(const QuantizeRequest& request, const Recipe& base) {
  LatticeOptions options;
  options.bits = base.grid().bits();
  options.calibration = base.calibration();
  options.head_bits = base.head_bits();
  options.layers.assign(base.layers().begin(), base.layers().end());
  if (request.format == OutputFormat::kGguf) {
    options.group_sizes = {32};
    options.offsets = {Recipe::SYMMETRIC, Recipe::MINIMUMS};  // Q4_0, Q4_1
  }
  if (request.format == OutputFormat::kGptq) options.offsets = {Recipe::ZEROS};
  if (request.given.group_size) {
    options.group_sizes = {*request.given.group_size};
  }
  // The base has an offset of its own where none was given.
  if (request.given.symmetric || request.given.offset) {
    options.offsets = {base.grid().offset()};
  }
  if (options.bits == 8) options.offsets = {Recipe::SYMMETRIC};
  return options;
}

absl::StatusOr<std::vector<Recipe>> Candidates(const QuantizeRequest& request,
                                               const AutoFlags& flags,
                                               const Recipe& base) {
  if (!flags.search_space.empty()) {
    return ReadRecipes(flags.search_space, base.calibration());
  }
  return RecipeLattice(Lattice(request, base));
}

// What matrices are raised to when no recipe is within tolerance.
int RaisedBits(OutputFormat format, const std::vector<Recipe>& recipes) {
  if (format == OutputFormat::kGptq) return 0;
  // Where some recipes are int8, the best is one of them.
  const bool int8 = absl::c_any_of(
      recipes, [](const Recipe& recipe) { return recipe.grid().bits() == 8; });
  return int8 ? 16 : 8;
}

RecipeSearchOptions Options(const QuantizeRequest& request,
                            const AutoFlags& flags,
                            const std::vector<Recipe>& recipes) {
  RecipeSearchOptions options = flags.search;
  // The other formats hold the head as their readers expect it, and a GPTQ
  // folder has one width for all.
  options.try_int8_head = request.format == OutputFormat::kNib &&
                          !request.given.keep_float &&
                          !request.recipe->recipe.has_head_bits();
  options.raised_bits = RaisedBits(request.format, recipes);
  return options;
}

// A file as it is now, without reading it.
std::string Stamp(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  const auto time = fs::last_write_time(path, error);
  return absl::StrCat(path, " ", error ? 0 : size, " ",
                      error ? 0 : time.time_since_epoch().count(), "\n");
}

std::string Identity(const QuantizeRequest& request, const AutoFlags& flags,
                     const std::string& model_path) {
  std::string identity = absl::StrCat(kProgramVersion, "\n", Stamp(model_path),
                                      Stamp(request.recipe->calibration));
  for (const char* file : {"/config.json", "/model.safetensors"}) {
    absl::StrAppend(&identity, Stamp(model_path + file));
  }
  for (const TaskSpec& task : flags.tasks) {
    absl::StrAppend(&identity, task.name, " ", Stamp(task.path));
  }
  return absl::StrCat(identity, flags.limit);
}

std::string RecipeFile(const std::string& out) {
  absl::string_view stem = out;
  for (const char* ending : {".nib", ".gguf"}) {
    absl::ConsumeSuffix(&stem, ending);
  }
  return absl::StrCat(stem, ".textproto");
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const absl::Status status = file->Append(text);
  return status.ok() ? file->Commit() : status;
}

// One search, from the open checkpoint to the written model.
class AutoRun {
 public:
  AutoRun(const QuantizeRequest& request, const AutoFlags& flags,
          const Checkpoint& checkpoint, const std::atomic<bool>* cancelled,
          ThreadPool& pool)
      : request_(request),
        flags_(flags),
        checkpoint_(checkpoint),
        cancelled_(cancelled),
        pool_(pool),
        work_folder_(request.out + ".search"),
        journal_(work_folder_ + "/journal.textproto"),
        bar_("searching", stderr) {}

  absl::StatusOr<AutoOutcome> Run(Recipe base) {
    // What the flags say must hold for any method; this one reads text.
    base.set_rounding(Recipe::GPTQ);
    const absl::StatusOr<Recipe> complete = CompleteRecipe(base);
    if (!complete.ok()) return complete.status();
    *base.mutable_calibration() = complete->calibration();
    const absl::StatusOr<std::vector<Recipe>> recipes =
        Candidates(request_, flags_, base);
    if (!recipes.ok()) return recipes.status();
    absl::Status status = Prepare(*recipes, base.calibration());
    if (!status.ok()) return status;
    AutoOutcome outcome;
    status = Search(*recipes, &outcome.search);
    bar_.Finish();
    if (status.ok()) status = Write(&outcome);
    if (absl::IsCancelled(status)) {
      return absl::CancelledError(
          absl::StrCat("interrupted; what is known of the recipes lies in ",
                       work_folder_, ", and --resume goes on behind it"));
    }
    if (!status.ok()) return status;
    evaluator_.reset();
    std::error_code ignored;
    fs::remove_all(work_folder_, ignored);
    return outcome;
  }

 private:
  // What would fail after hours fails here.
  absl::Status Prepare(const std::vector<Recipe>& recipes,
                       const Recipe::Calibration& calibration) {
    if (!request_.resume && fs::exists(journal_)) {
      return absl::FailedPreconditionError(absl::StrCat(
          work_folder_,
          ": holds the trials of a search that was interrupted; --resume goes "
          "on behind them, or remove the folder"));
    }
    for (const Recipe& recipe : recipes) {
      const absl::Status status =
          CheckCanWrite(checkpoint_, recipe, request_.format, request_.out);
      if (!status.ok()) return status;
    }
    ModelEvaluatorOptions options;
    options.tasks.limit = flags_.limit;
    options.calibration = calibration;
    options.work_folder = work_folder_;
    options.program_version = kProgramVersion;
    options.cancelled = cancelled_;
    options.progress = [this](absl::string_view what, double share) {
      bar_.SetNote(what);
      constexpr int64_t kParts = 1000;
      bar_.Update(static_cast<int64_t>(share * kParts), kParts);
    };
    absl::StatusOr<std::unique_ptr<ModelEvaluator>> evaluator =
        ModelEvaluator::Create(
            checkpoint_, flags_.tasks,
            [this](const Recipe::Calibration& settings) {
              return LoadCalibration(checkpoint_, request_.recipe->calibration,
                                     settings);
            },
            options, pool_);
    if (!evaluator.ok()) return evaluator.status();
    evaluator_ = *std::move(evaluator);
    for (const Recipe& recipe : recipes) {
      const absl::Status status = evaluator_->PrepareCalibration(recipe);
      if (!status.ok()) return status;
    }
    std::error_code error;
    fs::create_directory(work_folder_, error);
    if (!error) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(work_folder_, ": ", error.message()));
  }

  absl::Status Search(const std::vector<Recipe>& recipes, SearchRun* run) {
    JournalEvaluator journal(*evaluator_, journal_,
                             Identity(request_, flags_, checkpoint_.path));
    if (request_.resume) {
      std::fprintf(stderr, "quantize: %zu trials of an earlier run\n",
                   journal.Resume());
    }
    run->options = Options(request_, flags_, recipes);
    size_t trials = 0;
    run->options.report = [this, &trials](const Trial& trial) {
      bar_.Finish();
      std::fputs(TrialLine(trials++, trial).c_str(), stderr);
    };
    absl::StatusOr<SearchResult> result =
        SearchRecipe(recipes, journal, run->options);
    run->options.report = nullptr;
    if (!result.ok()) return result.status();
    run->result = *std::move(result);
    return journal.NeedModel(run->result.chosen);
  }

  absl::Status Write(AutoOutcome* outcome) {
    const CalibratedResult& model =
        evaluator_->Model(outcome->search.result.chosen);
    QuantizationOptions writing = request_.options;
    writing.method = MethodName(model.recipe);
    writing.recipe = RecipeText(model.recipe);
    writing.cancelled = cancelled_;
    absl::StatusOr<QuantizationReport> written =
        WriteKept(model.checkpoint, request_.out, request_.format, writing,
                  pool_, nullptr);
    if (!written.ok()) return written.status();
    AddErrors(model.report, &*written);
    outcome->model = {*std::move(written), model.report, model.recipe};
    outcome->search.recipe = RecipeText(model.recipe);
    outcome->search.recipe_file = RecipeFile(request_.out);
    return WriteText(outcome->search.recipe_file, outcome->search.recipe);
  }

  const QuantizeRequest& request_;
  const AutoFlags& flags_;
  const Checkpoint& checkpoint_;
  const std::atomic<bool>* const cancelled_;
  ThreadPool& pool_;
  const std::string work_folder_;
  const std::string journal_;
  ProgressBar bar_;
  std::unique_ptr<ModelEvaluator> evaluator_;
};

}  // namespace

absl::StatusOr<AutoOutcome> QuantizeAuto(const QuantizeRequest& request,
                                         const AutoFlags& flags,
                                         const std::string& model_path,
                                         const std::atomic<bool>* cancelled,
                                         ThreadPool& pool) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  RecipeRequest base = *request.recipe;
  FitLength(checkpoint->config, &base);
  return AutoRun(request, flags, *checkpoint, cancelled, pool).Run(base.recipe);
}

}  // namespace nibble
