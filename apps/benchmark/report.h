// What bench found, as numbers, as JSON and as a table for the eye.
//
//   BenchReport report;
//   report.rows.push_back(row);
//   PrintJsonLine(ReportJson(report));
//
// A row measured its own limits beside it, in turn with each repetition; its
// shares are of those, so that they hold on a machine whose speed wanders.
#ifndef NIBBLE_APPS_BENCHMARK_REPORT_H_
#define NIBBLE_APPS_BENCHMARK_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/benchmark/statistics.h"
#include "apps/common/json.h"

namespace nibble {

// A multiply instruction, and what all threads do of it.
struct MultiplyPeak {
  std::string name;
  double macs_per_second = 0;
};

struct BenchMachine {
  std::string cpu;
  std::string isa;
  int threads = 0;
  // Medians over all rows.
  double read_bytes_per_second = 0;
  double peak_macs_per_second = 0;
  std::string multiply;             // the instruction that the peak is of
  std::vector<MultiplyPeak> peaks;  // of every kind that the ISA has
  int64_t last_level_cache_bytes = 0;
  int64_t read_buffer_bytes = 0;
  std::string huge_pages;
};

// What the rows of one run share.
struct BenchModel {
  std::string shape;    // "tinyllama-1.1b", or the model's name
  std::string weights;  // "int4"
  std::optional<int64_t> group_size;
  std::optional<bool> symmetric;
  std::string head;  // the output head's format
  std::string activations;
  std::string kv_cache;
  int64_t weight_bytes = 0;  // all packed matrices
};

enum class BenchPhase { kProduct, kPrefill, kDecode };

struct BenchRow {
  BenchPhase phase = BenchPhase::kProduct;
  // kProduct: "qkv", "attention", "up", "down", "head", or "layer", the first
  // four in turn; and the rows of activations.
  std::string matrix;
  std::optional<int64_t> activation_rows;
  // kPrefill.
  std::optional<int64_t> prompt_tokens;
  // kDecode.
  std::optional<int64_t> depth;
  std::optional<int64_t> streams;

  Summary milliseconds;  // of one product, one prefill, one decode step
  double tokens = 0;     // in that time
  double bytes = 0;      // read from memory in it, at least
  double macs = 0;       // with weights; those of attention do not count
  // Medians of what was measured in turn with it.
  double read_bytes_per_second = 0;
  double peak_macs_per_second = 0;
  // kPrefill: of the rate of the matrix products alone, at as many rows.
  std::optional<double> share_of_products;
  // kProduct: median against one row's of the same matrix, where that ran.
  std::optional<double> time_ratio_to_one_row;

  double TokensPerSecond() const { return tokens * 1e3 / milliseconds.median; }
  double BytesPerSecond() const { return bytes * 1e3 / milliseconds.median; }
  double MacsPerSecond() const { return macs * 1e3 / milliseconds.median; }
  double ShareOfBandwidth() const {
    return BytesPerSecond() / read_bytes_per_second;
  }
  double ShareOfPeak() const { return MacsPerSecond() / peak_macs_per_second; }
};

struct BenchReport {
  BenchMachine machine;
  BenchModel model;
  std::vector<BenchRow> rows;
  // "decode, depth 3072, 16 streams: ...": what was asked for and not run.
  std::vector<std::string> skipped;
};

// "product", "prefill", "decode".
const char* BenchPhaseName(BenchPhase phase);

// "decode, depth 3072, 4 streams"; "prefill 512"; "product up, 1 row".
std::string RowName(const BenchRow& row);

// What stands beside a point of the plot: "decode @3072 x4", "up x1".
std::string ShortRowName(const BenchRow& row);

// {"machine":{...},"rows":[...],"skipped":[...]}; a field that says nothing
// about a row is null. Fields are described in docs/speed.md.
Json ReportJson(const BenchReport& report);

// Machine, limits and model, as one line.
std::string ReportHeading(const BenchReport& report);

// The whole for reading, several lines.
std::string ReportText(const BenchReport& report);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_REPORT_H_
