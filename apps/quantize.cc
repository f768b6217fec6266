// quantize: a float checkpoint in, a packed model, a GGUF file or a GPTQ folder
// out.

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "apps/auto/auto_flags.h"
#include "apps/auto/search_report.h"
#include "apps/common/app.h"
#include "apps/common/interrupt.h"
#include "apps/common/json.h"
#include "apps/common/model_flag.h"
#include "apps/common/peak_memory.h"
#include "apps/common/progress_bar.h"
#include "apps/quantize_auto.h"
#include "apps/quantize_calibrated.h"
#include "apps/quantize_flags.h"
#include "apps/quantize_report.h"
#include "kernels/thread_pool.h"
#include "quantization/export/gguf_export.h"
#include "quantization/export/gptq_export.h"
#include "quantization/flow.h"
#include "quantization/recipe/recipe.h"
#include "tensor/io/atomic_file.h"

namespace nibble {
namespace {

absl::Status WriteReport(const std::string& path, const Json& report) {
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const absl::Status status =
      file->Append(absl::StrCat(JsonLine(report), "\n"));
  return status.ok() ? file->Commit() : status;
}

// Every format has a function of one form.
using Writer = decltype(&QuantizeCheckpoint);

Writer WriterOf(OutputFormat format) {
  switch (format) {
    case OutputFormat::kGguf:
      return ExportGguf;
    case OutputFormat::kGptq:
      return ExportGptq;
    case OutputFormat::kNib:
      break;
  }
  return QuantizeCheckpoint;
}

// `search` may be null.
absl::Status Report(const QuantizeRequest& request, const QuantizeRun& run,
                    const SearchRun* search) {
  Json json = QuantizeJson(run);
  if (search != nullptr) json["search"] = SearchJson(*search);
  if (request.json) {
    PrintJsonLine(json);
  } else {
    std::fputs(QuantizeText(run).c_str(), stdout);
    if (search != nullptr) std::fputs(SearchText(*search).c_str(), stdout);
  }
  if (request.report.empty()) return absl::OkStatus();
  return WriteReport(request.report, json);
}

QuantizeRun RunOf(const QuantizeRequest& request, CalibratedOutcome outcome) {
  QuantizeRun run = {ModelNameFromFlag(), request.out,
                     request.options,     std::move(outcome.written),
                     PeakRssBytes(),      request.threads,
                     std::nullopt};
  run.recipe = {MethodName(outcome.recipe), RecipeName(outcome.recipe),
                RecipeText(outcome.recipe), std::move(outcome.calibrated)};
  return run;
}

absl::Status RunSearch(const QuantizeRequest& request, const AutoFlags& flags,
                       const std::string& model, ThreadPool& pool) {
  absl::StatusOr<AutoOutcome> outcome =
      QuantizeAuto(request, flags, model, request.options.cancelled, pool);
  if (!outcome.ok()) return outcome.status();
  const absl::Status reported = Report(
      request, RunOf(request, std::move(outcome->model)), &outcome->search);
  if (!reported.ok() || outcome->search.result.within_tolerance) {
    return reported;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no recipe is within tolerance; ", request.out,
                   " was made by the best one"));
}

absl::Status QuantizeMain(absl::Span<const std::string>) {
  const absl::StatusOr<AutoFlags> automatic = AutoFlagsFromFlags();
  if (!automatic.ok()) return automatic.status();
  absl::StatusOr<QuantizeRequest> request =
      QuantizeRequestFromFlags(*automatic);
  if (!request.ok()) return request.status();
  const absl::StatusOr<std::string> model = FloatModelPathFromFlag();
  if (!model.ok()) return model.status();

  InterruptScope interrupt;
  request->options.cancelled = interrupt.flag();
  ThreadPool pool(request->threads);
  if (automatic->given) return RunSearch(*request, *automatic, *model, pool);
  if (request->recipe.has_value()) {
    absl::StatusOr<CalibratedOutcome> outcome =
        QuantizeCalibrated(*request, *model, interrupt.flag(), pool);
    if (!outcome.ok()) return outcome.status();
    return Report(*request, RunOf(*request, *std::move(outcome)), nullptr);
  }
  ProgressBar bar("quantizing", stderr);
  absl::StatusOr<QuantizationReport> report = WriterOf(request->format)(
      *model, request->out, request->options, pool,
      [&bar](int64_t done, int64_t total) { bar.Update(done, total); });
  bar.Finish();
  if (!report.ok()) return report.status();

  const QuantizeRun run = {ModelNameFromFlag(), request->out,
                           request->options,    *std::move(report),
                           PeakRssBytes(),      request->threads,
                           std::nullopt};
  return Report(*request, run, nullptr);
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  return nibble::RunApp(
      argc, argv,
      {"quantize",
       "rounds the weights of a model to 4 or 8 bits, to nearest or by a "
       "method that looks at activations, and packs them into a .nib file, "
       "which is mapped and run in place; or writes them as other programs "
       "read them."},
      nibble::QuantizeMain);
}
