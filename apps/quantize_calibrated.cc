#include "apps/quantize_calibrated.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "apps/common/app.h"
#include "apps/common/progress_bar.h"
#include "apps/common/version.h"
#include "kernels/machine_limits.h"
#include "models/registry.h"
#include "quantization/calibrated/calibrated_flow.h"
#include "quantization/calibrated/flow_checks.h"
#include "quantization/calibration/text.h"
#include "quantization/export/gguf_export.h"
#include "quantization/export/gguf_metadata.h"
#include "quantization/export/gguf_plan.h"
#include "quantization/export/gptq_export.h"
#include "quantization/recipe/matrix_grids.h"
#include "quantization/recipe/recipe.h"
#include "runtime/load_tokenizer.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

absl::Status Prefixed(const std::string& what, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(what, ": ", status.message()));
}

// Shares of the work, and the time that is left at the speed so far.
class BlockProgress {
 public:
  BlockProgress() : bar_("quantizing", stderr) {}

  void Update(const CalibratedProgress& progress) {
    const absl::Time now = absl::Now();
    // What an earlier run has finished says nothing about this one's speed.
    if (first_share_ < 0) {
      first_share_ = progress.share;
      start_ = now;
    }
    std::string note =
        absl::StrFormat("block %d of %d", progress.block + 1, progress.blocks);
    const double done = progress.share - first_share_;
    const absl::Duration spent = now - start_;
    if (done > 0 && spent > absl::Seconds(2)) {
      absl::StrAppend(
          &note, ", ",
          absl::FormatDuration(absl::Trunc(
              spent * ((1 - progress.share) / done), absl::Seconds(1))),
          " left");
    }
    bar_.SetNote(note);
    constexpr int64_t kParts = 1000;
    bar_.Update(static_cast<int64_t>(progress.share * kParts), kParts);
  }

  void Finish() { bar_.Finish(); }

 private:
  ProgressBar bar_;
  double first_share_ = -1;
  absl::Time start_;
};

// What all threads multiply at best, by the instruction that the passes use.
double PeakMultiplies(ThreadPool& pool) {
  const MultiplyKind kind = HasMultiply(MultiplyKind::kBF16Dot)
                                ? MultiplyKind::kBF16Dot
                                : MultiplyKind::kF32;
  // A few milliseconds each, of which the best counts: others on the machine
  // only ever add time.
  constexpr int kRuns = 9;
  constexpr int64_t kMacs = int64_t{1} << 30;
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    int64_t done = 0;
    const double seconds = TimeMultiplies(kind, kMacs, pool, done);
    best = std::max(best, static_cast<double>(done) / seconds);
  }
  return best;
}

absl::Status CheckGguf(const Checkpoint& checkpoint, const Recipe& recipe,
                       const MatrixGrids& grids) {
  const absl::StatusOr<GgufPlan> plan = PlanGguf(checkpoint);
  if (!plan.ok()) return plan.status();
  // The type of the weights changes nothing of what has no place there.
  const absl::Status described =
      ExportedMetadata(checkpoint, plan->architecture, DType::kQ4_1).status();
  if (!described.ok()) return described;
  if (recipe.grid().group_size() != 32) {
    return FlagError("format", "gguf",
                     absl::StrCat("has groups of 32 weights; those of the "
                                  "recipe are of ",
                                  recipe.grid().group_size()));
  }
  for (const std::string& name : MatrixNames(checkpoint.config)) {
    const std::optional<MatrixGrid> grid = grids.Find(name);
    if (!grid || grid->spec.offset != CodeOffset::kZeros) continue;
    // Few zeros times their scale are f16 numbers, as Q4_1 wants them: most
    // matrices would become Q8_0, of twice the size.
    return FlagError("format", "gguf",
                     absl::StrCat("has no zeros, which the recipe gives ", name,
                                  "; its offset must be MINIMUMS (Q4_1) or "
                                  "SYMMETRIC (Q4_0)"));
  }
  return absl::OkStatus();
}

}  // namespace

void FitLength(const DecoderConfig& config, RecipeRequest* request) {
  if (request->has_length || request->calibration.empty()) return;
  Recipe::Calibration& text = *request->recipe.mutable_calibration();
  text.set_length(static_cast<int32_t>(
      std::min<int64_t>(text.length(), config.max_positions)));
}

absl::StatusOr<CalibrationWindows> LoadCalibration(
    const Checkpoint& checkpoint, const std::string& path,
    const Recipe::Calibration& settings) {
  const absl::StatusOr<std::vector<std::string>> texts =
      ReadCalibrationText(path);
  if (!texts.ok()) return Prefixed("--calibration", texts.status());
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadTokenizer(checkpoint);
  if (!tokenizer.ok()) return tokenizer.status();
  if (*tokenizer == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(checkpoint.path,
                     ": has no tokenizer beside it, which the calibration text "
                     "needs; put its tokenizer.json there"));
  }
  CalibrationOptions options;
  options.samples = settings.samples();
  options.length = settings.length();
  options.seed = settings.seed();
  if ((*tokenizer)->adds_bos()) options.bos = (*tokenizer)->bos_id();
  absl::StatusOr<CalibrationWindows> windows =
      ChooseWindows(EncodeTexts(*texts, **tokenizer), options);
  if (!windows.ok()) {
    return Prefixed(absl::StrCat("--calibration: ", path), windows.status());
  }
  if (static_cast<int64_t>(windows->windows.size()) < options.samples) {
    std::fprintf(
        stderr, "quantize: %s has %d tokens: %d windows of %d instead of %d\n",
        path.c_str(), static_cast<int>(windows->text_tokens),
        static_cast<int>(windows->windows.size()),
        static_cast<int>(windows->length), static_cast<int>(options.samples));
  }
  return windows;
}

absl::Status CheckCanWrite(const Checkpoint& checkpoint, const Recipe& recipe,
                           OutputFormat format, const std::string& out) {
  std::error_code error;
  if (fs::equivalent(checkpoint.path, out, error) && !error) {
    return absl::InvalidArgumentError(absl::StrCat(
        out, ": is the model itself; write the quantized model elsewhere"));
  }
  if (checkpoint.packed != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": is packed already; give the checkpoint it was made "
                     "from"));
  }
  const absl::StatusOr<MatrixGrids> grids = MatrixGrids::Create(recipe);
  if (!grids.ok()) return grids.status();
  const absl::Status fits = CheckGrids(*grids, checkpoint.config);
  if (!fits.ok()) return fits;
  switch (format) {
    case OutputFormat::kNib:
      return absl::OkStatus();
    case OutputFormat::kGguf:
      return CheckGguf(checkpoint, recipe, *grids);
    case OutputFormat::kGptq:
      break;
  }
  if (checkpoint.format != "safetensors") {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path,
                     ": a GPTQ folder is made from a Hugging Face folder, "
                     "whose names and configuration it takes over"));
  }
  if (recipe.layers_size() > 0 || recipe.head_bits() != 16) {
    return FlagError("format", "gptq",
                     "has one width and group size for all matrices and the "
                     "head in 16 bits: leave --keep_float and --head_bits, and "
                     "layers of a recipe, as they are by default");
  }
  if (recipe.grid().offset() == Recipe::MINIMUMS || recipe.grid().bits() == 3) {
    return FlagError("format", "gptq", "has neither minimums nor 3 bits");
  }
  if (fs::exists(out, error) && !fs::is_empty(out, error)) {
    return FlagError("out", out, "is there already");
  }
  return absl::OkStatus();
}

void AddErrors(const CalibratedReport& report, QuantizationReport* written) {
  std::map<std::string, double> errors;
  for (const BlockReport& block : report.blocks()) {
    for (const MatrixReport& matrix : block.matrices()) {
      if (matrix.has_relative_error()) {
        errors[matrix.name()] = matrix.relative_error();
      }
    }
  }
  for (QuantizedTensor& tensor : written->tensors) {
    const auto error = errors.find(tensor.name);
    if (error != errors.end()) tensor.relative_error = error->second;
  }
}

absl::StatusOr<QuantizationReport> WriteKept(
    const Checkpoint& checkpoint, const std::string& out, OutputFormat format,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress) {
  switch (format) {
    case OutputFormat::kGguf:
      return ExportOpenGguf(checkpoint, out, options, pool, progress);
    case OutputFormat::kGptq:
      return ExportOpenGptq(checkpoint, out, options, pool, progress);
    case OutputFormat::kNib:
      break;
  }
  return QuantizeOpenCheckpoint(checkpoint, out, options, pool, progress);
}

absl::StatusOr<CalibratedOutcome> QuantizeCalibrated(
    const QuantizeRequest& request, const std::string& model_path,
    const std::atomic<bool>* cancelled, ThreadPool& pool) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  RecipeRequest wanted = *request.recipe;
  FitLength(checkpoint->config, &wanted);
  const absl::StatusOr<Recipe> recipe = CompleteRecipe(wanted.recipe);
  if (!recipe.ok()) return recipe.status();
  const absl::Status writable =
      CheckCanWrite(*checkpoint, *recipe, request.format, request.out);
  if (!writable.ok()) return writable;
  CalibrationWindows windows;
  if (!wanted.calibration.empty()) {
    absl::StatusOr<CalibrationWindows> loaded =
        LoadCalibration(*checkpoint, wanted.calibration, recipe->calibration());
    if (!loaded.ok()) return loaded.status();
    windows = *std::move(loaded);
  }
  CalibratedOptions options;
  options.work_folder = absl::StrCat(request.out, ".work");
  options.resume = request.resume;
  options.program_version = kProgramVersion;
  options.cancelled = cancelled;
  BlockProgress progress;
  options.progress = [&progress](const CalibratedProgress& done) {
    progress.Update(done);
  };
  // Before and after the work: at either moment others may want the machine.
  const double peak_before = PeakMultiplies(pool);
  absl::StatusOr<CalibratedResult> result = QuantizeWithRecipe(
      *checkpoint, wanted.calibration.empty() ? nullptr : &windows, *recipe,
      options, pool);
  progress.Finish();
  if (!result.ok()) return result.status();
  QuantizationOptions writing = request.options;
  writing.keep_codes = true;
  writing.method = MethodName(result->recipe);
  writing.recipe = RecipeText(result->recipe);
  writing.cancelled = cancelled;
  absl::StatusOr<QuantizationReport> written = WriteKept(
      result->checkpoint, request.out, request.format, writing, pool, nullptr);
  if (!written.ok()) return written.status();
  const absl::Status removed = result->work.Remove();
  if (!removed.ok()) return removed;
  AddErrors(result->report, &*written);
  result->report.set_peak_multiplies(
      std::max(peak_before, PeakMultiplies(pool)));
  return CalibratedOutcome{*std::move(written), std::move(result->report),
                           std::move(result->recipe)};
}

}  // namespace nibble
