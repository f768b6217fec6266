// quantize with a recipe: calibration text in, blocks quantized one by one, the
// result written in any format.
#ifndef NIBBLE_APPS_QUANTIZE_CALIBRATED_H_
#define NIBBLE_APPS_QUANTIZE_CALIBRATED_H_

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "apps/quantize_flags.h"
#include "apps/quantize_recipe.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "quantization/calibrated/report.pb.h"
#include "quantization/calibration/windows.h"
#include "quantization/flow.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// Windows of the default length are made as short as the model wants them.
void FitLength(const DecoderConfig& config, RecipeRequest* request);

// Tokenizes the text at `path` with the model's own tokenizer and draws
// windows; each begins with BOS where the tokenizer adds one. Errors name the
// file and say what to do. A text too short for all windows gives fewer, and a
// line on standard error.
absl::StatusOr<CalibrationWindows> LoadCalibration(
    const Checkpoint& checkpoint, const std::string& path,
    const Recipe::Calibration& settings);

// A recipe that does not fit the model, and what `format` cannot hold, found
// before hours of work. REQUIRES: `recipe` is complete.
absl::Status CheckCanWrite(const Checkpoint& checkpoint, const Recipe& recipe,
                           OutputFormat format, const std::string& out);

// Writes a quantized checkpoint (quantization/calibrated/overlay.h) with its
// codes as they are.
absl::StatusOr<QuantizationReport> WriteKept(
    const Checkpoint& checkpoint, const std::string& out, OutputFormat format,
    const QuantizationOptions& options, ThreadPool& pool,
    const QuantizationProgress& progress);

// Matrices of a .nib file take over the errors of the report, which has their
// names; those of other formats have names of their own.
void AddErrors(const CalibratedReport& report, QuantizationReport* written);

struct CalibratedOutcome {
  QuantizationReport written;
  CalibratedReport calibrated;
  Recipe recipe;  // complete
};

// All of it. The folder OUT.work holds finished blocks meanwhile; it is removed
// at the end, and stays for --resume when the work is interrupted or fails.
// REQUIRES: request.recipe is set.
absl::StatusOr<CalibratedOutcome> QuantizeCalibrated(
    const QuantizeRequest& request, const std::string& model_path,
    const std::atomic<bool>* cancelled, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_CALIBRATED_H_
