#include "apps/benchmark/report.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/common/json.h"

namespace nibble {
namespace {

template <class T>
Json OrNull(const std::optional<T>& value) {
  return value.has_value() ? Json(*value) : Json(nullptr);
}

std::string Counted(int64_t count, const char* noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

Json MachineJson(const BenchMachine& machine) {
  Json peaks = Json::object();
  for (const MultiplyPeak& peak : machine.peaks) {
    peaks[peak.name] = peak.macs_per_second / 1e9;
  }
  return {
      {"cpu", machine.cpu},
      {"isa", machine.isa},
      {"threads", machine.threads},
      {"read_gigabytes_per_second", machine.read_bytes_per_second / 1e9},
      {"peak_gigamacs_per_second", machine.peak_macs_per_second / 1e9},
      {"multiply", machine.multiply},
      {"peaks", peaks},
      {"last_level_cache_bytes", machine.last_level_cache_bytes},
      {"read_buffer_bytes", machine.read_buffer_bytes},
      {"huge_pages", machine.huge_pages},
  };
}

Json RowJson(const BenchReport& report, const BenchRow& row) {
  const BenchModel& model = report.model;
  return {
      {"phase", BenchPhaseName(row.phase)},
      {"shape", model.shape},
      {"weights", model.weights},
      {"group_size", OrNull(model.group_size)},
      {"symmetric", OrNull(model.symmetric)},
      {"head", model.head},
      {"activations", model.activations},
      {"kv_cache", model.kv_cache},
      {"matrix", row.matrix.empty() ? Json(nullptr) : Json(row.matrix)},
      {"activation_rows", OrNull(row.activation_rows)},
      {"prompt_tokens", OrNull(row.prompt_tokens)},
      {"depth", OrNull(row.depth)},
      {"streams", OrNull(row.streams)},
      {"threads", report.machine.threads},
      {"isa", report.machine.isa},
      {"median_ms", row.milliseconds.median},
      {"min_ms", row.milliseconds.min},
      {"max_ms", row.milliseconds.max},
      {"tokens_per_second", row.TokensPerSecond()},
      {"bytes", row.bytes},
      {"gigabytes_per_second", row.BytesPerSecond() / 1e9},
      {"read_gigabytes_per_second", row.read_bytes_per_second / 1e9},
      {"share_of_bandwidth", row.ShareOfBandwidth()},
      {"macs", row.macs},
      {"gigamacs_per_second", row.MacsPerSecond() / 1e9},
      {"peak_gigamacs_per_second", row.peak_macs_per_second / 1e9},
      {"share_of_peak", row.ShareOfPeak()},
      {"share_of_products", OrNull(row.share_of_products)},
      {"time_ratio_to_one_row", OrNull(row.time_ratio_to_one_row)},
  };
}

std::string ModelLine(const BenchModel& model) {
  std::string line = absl::StrCat(model.shape, ", ", model.weights);
  if (model.group_size) absl::StrAppend(&line, " g", *model.group_size);
  if (model.symmetric) {
    absl::StrAppend(&line, *model.symmetric ? " symmetric" : " asymmetric");
  }
  absl::StrAppend(&line, ", head ", model.head, ", activations ",
                  model.activations, ", KV cache ", model.kv_cache);
  absl::StrAppendFormat(&line, "; %.2f GB of weights",
                        model.weight_bytes / 1e9);
  return line;
}

std::string MachineLine(const BenchMachine& machine) {
  return absl::StrFormat(
      "%s, %s, %s; reads %.1f GB/s, %s %.0f GMAC/s", machine.cpu, machine.isa,
      Counted(machine.threads, "thread"), machine.read_bytes_per_second / 1e9,
      machine.multiply, machine.peak_macs_per_second / 1e9);
}

// What only some rows have.
std::string Remark(const BenchRow& row) {
  if (row.share_of_products) {
    return absl::StrFormat("%.1f%% of the products alone",
                           *row.share_of_products * 100);
  }
  // Of few rows only: many are bound by multiplies, not by the weights' bytes.
  constexpr int64_t kFewRows = 16;
  const int64_t rows = row.activation_rows.value_or(0);
  if (row.time_ratio_to_one_row && rows > 1 && rows <= kFewRows) {
    return absl::StrFormat("%.2f x one row's time", *row.time_ratio_to_one_row);
  }
  return "";
}

}  // namespace

const char* BenchPhaseName(BenchPhase phase) {
  switch (phase) {
    case BenchPhase::kProduct:
      return "product";
    case BenchPhase::kPrefill:
      return "prefill";
    case BenchPhase::kDecode:
      return "decode";
  }
  return "unknown";
}

std::string RowName(const BenchRow& row) {
  switch (row.phase) {
    case BenchPhase::kProduct:
      return absl::StrCat("product ", row.matrix, ", ",
                          Counted(row.activation_rows.value_or(0), "row"));
    case BenchPhase::kPrefill:
      return absl::StrCat("prefill ", row.prompt_tokens.value_or(0));
    case BenchPhase::kDecode:
      return absl::StrCat("decode, depth ", row.depth.value_or(0), ", ",
                          Counted(row.streams.value_or(0), "stream"));
  }
  return "";
}

std::string ShortRowName(const BenchRow& row) {
  switch (row.phase) {
    case BenchPhase::kProduct:
      return absl::StrCat(row.matrix, " x", row.activation_rows.value_or(0));
    case BenchPhase::kPrefill:
      return absl::StrCat("prefill ", row.prompt_tokens.value_or(0));
    case BenchPhase::kDecode:
      return absl::StrCat("decode @", row.depth.value_or(0), " x",
                          row.streams.value_or(0));
  }
  return "";
}

Json ReportJson(const BenchReport& report) {
  Json rows = Json::array();
  for (const BenchRow& row : report.rows) rows.push_back(RowJson(report, row));
  return {{"machine", MachineJson(report.machine)},
          {"weight_bytes", report.model.weight_bytes},
          {"rows", rows},
          {"skipped", report.skipped}};
}

std::string ReportHeading(const BenchReport& report) {
  return absl::StrCat(ModelLine(report.model), "; on ",
                      MachineLine(report.machine));
}

std::string ReportText(const BenchReport& report) {
  std::string text = absl::StrCat(MachineLine(report.machine), "\n",
                                  ModelLine(report.model), "\n\n");
  absl::StrAppendFormat(&text, "%-29s %10s %19s %10s %7s %6s %8s %6s\n", "",
                        "median ms", "(min .. max)", "tokens/s", "GB/s",
                        "of bw", "GMAC/s", "of pk");
  for (const BenchRow& row : report.rows) {
    absl::StrAppendFormat(
        &text, "%-29s %10.3f %19s %10.1f %7.1f %5.1f%% %8.1f %5.1f%%",
        RowName(row), row.milliseconds.median,
        absl::StrFormat("(%.3f .. %.3f)", row.milliseconds.min,
                        row.milliseconds.max),
        row.TokensPerSecond(), row.BytesPerSecond() / 1e9,
        row.ShareOfBandwidth() * 100, row.MacsPerSecond() / 1e9,
        row.ShareOfPeak() * 100);
    const std::string remark = Remark(row);
    absl::StrAppend(&text, remark.empty() ? "" : "  ", remark, "\n");
  }
  for (const std::string& line : report.skipped) {
    absl::StrAppend(&text, "skipped: ", line, "\n");
  }
  return text;
}

}  // namespace nibble
