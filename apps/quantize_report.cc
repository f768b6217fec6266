#include "apps/quantize_report.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/common/json.h"
#include "quantization/flow.h"
#include "quantization/round_to_nearest.h"

namespace nibble {
namespace {

// Of the checkpoint's bytes.
double MegabytesPerSecond(const QuantizationReport& report) {
  return report.seconds > 0
             ? static_cast<double>(report.stored_bytes) / report.seconds / 1e6
             : 0.0;
}

bool IsSymmetric(const RoundingOptions& rounding) {
  return rounding.bits == 8 || rounding.symmetric;
}

// Nothing is lost where codes are kept.
Json RelativeError(const QuantizeRun& run) {
  return run.options.keep_codes ? Json() : Json(run.report.relative_error);
}

Json TensorJson(const QuantizedTensor& tensor) {
  Json json;
  json["name"] = tensor.name;
  json["format"] = tensor.format;
  json["shape"] = {tensor.outputs, tensor.inputs};
  json["stored_bytes"] = tensor.stored_bytes;
  json["bytes"] = tensor.bytes;
  json["wide_scales"] = tensor.wide_scales;
  json["relative_error"] = nullptr;
  if (tensor.relative_error) json["relative_error"] = *tensor.relative_error;
  json["seconds"] = tensor.seconds;
  return json;
}

Json PhaseJson(const PhaseReport& phase, double peak) {
  Json json = {{"name", phase.name()}, {"seconds", phase.seconds()}};
  if (phase.multiplies() > 0) {
    json["gigamacs"] = phase.multiplies() / 1e9;
    json["gigamacs_per_second"] = phase.multiplies() / 1e9 / phase.seconds();
    if (peak > 0) {
      json["share_of_peak"] = phase.multiplies() / phase.seconds() / peak;
    }
  }
  return json;
}

Json MatrixJson(const MatrixReport& matrix) {
  Json json = {{"name", matrix.name()}, {"bits", matrix.bits()}};
  if (matrix.has_group_size()) {
    json["group_size"] = matrix.group_size();
    json["offset"] = matrix.offset();
    json["relative_error"] = matrix.relative_error();
    json["seconds"] = matrix.seconds();
  }
  if (matrix.has_loss()) {
    json["loss"] = matrix.loss();
    json["nearest_loss"] = matrix.nearest_loss();
    json["damping"] = matrix.damping();
    json["fell_back_to_nearest"] = matrix.fell_back();
  }
  if (matrix.has_damage()) json["damage"] = matrix.damage();
  return json;
}

Json BlockJson(const BlockReport& block) {
  Json json = {{"layer", block.layer()}};
  for (const MatrixReport& matrix : block.matrices()) {
    json["matrices"].push_back(MatrixJson(matrix));
  }
  for (const ScaleReport& scales : block.scales()) {
    Json& added =
        json["scales"].emplace_back(Json{{"input", scales.input()},
                                         {"least", scales.least()},
                                         {"greatest", scales.greatest()}});
    if (!scales.has_loss()) continue;
    added["identity_loss"] = scales.identity_loss();
    added["loss"] = scales.loss();
  }
  if (block.has_loss()) {
    json["start_loss"] = block.start_loss();
    json["loss"] = block.loss();
    json["iterations"] = block.iterations();
  }
  if (block.has_output_error()) json["output_error"] = block.output_error();
  return json;
}

Json CalibratedJson(const CalibratedReport& report) {
  Json json = {{"seconds", report.seconds()},
               {"resumed_blocks", report.resumed_blocks()},
               {"peak_gigamacs_per_second", report.peak_multiplies() / 1e9}};
  if (report.has_windows()) {
    json["windows"] = report.windows();
    json["length"] = report.length();
    json["digest"] = report.calibration_digest();
  }
  for (const PhaseReport& phase : report.phases()) {
    json["phases"].push_back(PhaseJson(phase, report.peak_multiplies()));
  }
  for (const BlockReport& block : report.blocks()) {
    json["blocks"].push_back(BlockJson(block));
  }
  json["notes"] = report.notes();
  return json;
}

void AppendCalibrated(std::string* text, const CalibratedReport& report) {
  for (const PhaseReport& phase : report.phases()) {
    absl::StrAppendFormat(text, "%-26s %9.2f s", phase.name(), phase.seconds());
    if (phase.multiplies() > 0) {
      absl::StrAppendFormat(text, "  %8.0f GMAC/s",
                            phase.multiplies() / 1e9 / phase.seconds());
      if (report.peak_multiplies() > 0) {
        absl::StrAppendFormat(text, ", %.0f%% of the peak",
                              100 * phase.multiplies() / phase.seconds() /
                                  report.peak_multiplies());
      }
    }
    absl::StrAppend(text, "\n");
  }
  for (const std::string& note : report.notes()) {
    absl::StrAppend(text, "note: ", note, "\n");
  }
}

}  // namespace

Json QuantizeJson(const QuantizeRun& run) {
  const RoundingOptions& rounding = run.options.rounding;
  Json json;
  json["model"] = run.model;
  json["out"] = run.out;
  json["method"] = run.recipe               ? run.recipe->method
                   : run.options.keep_codes ? "keep"
                                            : "rtn";
  if (run.recipe) json["recipe"] = run.recipe->recipe;
  if (!run.options.keep_codes) {
    json["bits"] = rounding.bits;
    json["group_size"] =
        rounding.group_size == kWholeRow ? -1 : rounding.group_size;
    json["symmetric"] = IsSymmetric(rounding);
    json["keep_float"] = run.options.keep_float;
  }
  json["tensors"] = Json::array();
  for (const QuantizedTensor& tensor : run.report.tensors) {
    json["tensors"].push_back(TensorJson(tensor));
  }
  json["totals"] = {{"stored_bytes", run.report.stored_bytes},
                    {"file_bytes", run.report.file_bytes},
                    {"relative_error", RelativeError(run)},
                    {"survey_seconds", run.report.survey_seconds},
                    {"seconds", run.report.seconds},
                    {"megabytes_per_second", MegabytesPerSecond(run.report)}};
  if (run.recipe) json["calibrated"] = CalibratedJson(run.recipe->report);
  json["peak_rss_bytes"] = run.peak_rss_bytes;
  json["threads"] = run.threads;
  return json;
}

std::string QuantizeText(const QuantizeRun& run) {
  size_t width = 0;
  for (const QuantizedTensor& tensor : run.report.tensors) {
    width = std::max(width, tensor.name.size());
  }
  std::string text;
  if (run.recipe) AppendCalibrated(&text, run.recipe->report);
  for (const QuantizedTensor& tensor : run.report.tensors) {
    const std::string shape =
        absl::StrCat(tensor.outputs, " x ", tensor.inputs);
    absl::StrAppendFormat(&text, "%-*s  %-5s %15s  %13d bytes",
                          static_cast<int>(width), tensor.name, tensor.format,
                          shape, tensor.bytes);
    if (tensor.relative_error) {
      absl::StrAppendFormat(&text, "  error %.4f", *tensor.relative_error);
    }
    absl::StrAppend(&text, tensor.wide_scales ? "  f32 scales\n" : "\n");
  }
  if (run.recipe) {
    const double seconds = run.recipe->report.seconds() + run.report.seconds;
    absl::StrAppendFormat(
        &text, "%s: %.1f MB, %s; %.1f s, peak memory %.0f MB\n", run.out,
        static_cast<double>(run.report.file_bytes) / 1e6, run.recipe->name,
        seconds, static_cast<double>(run.peak_rss_bytes) / 1e6);
    return text;
  }
  absl::StrAppendFormat(
      &text,
      "%s: %.1f MB from %.1f MB, %s; %.2f s, %.0f MB/s, peak memory "
      "%.0f MB\n",
      run.out, static_cast<double>(run.report.file_bytes) / 1e6,
      static_cast<double>(run.report.stored_bytes) / 1e6,
      run.options.keep_codes
          ? "codes kept"
          : absl::StrFormat("relative error %.4f", run.report.relative_error),
      run.report.seconds, MegabytesPerSecond(run.report),
      static_cast<double>(run.peak_rss_bytes) / 1e6);
  return text;
}

}  // namespace nibble
