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

}  // namespace

Json QuantizeJson(const QuantizeRun& run) {
  const RoundingOptions& rounding = run.options.rounding;
  Json json;
  json["model"] = run.model;
  json["out"] = run.out;
  json["method"] = run.options.keep_codes ? "keep" : "rtn";
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
