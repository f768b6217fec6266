// A report with a row of each phase, and text that must be escaped.
#ifndef NIBBLE_APPS_BENCHMARK_REPORT_TESTING_H_
#define NIBBLE_APPS_BENCHMARK_REPORT_TESTING_H_

#include "apps/benchmark/report.h"

namespace nibble {

inline BenchReport SampleReport() {
  BenchReport report;
  report.machine.cpu = "Test & Co <CPU>";
  report.machine.isa = "avx512_vnni";
  report.machine.threads = 2;
  report.machine.read_bytes_per_second = 50e9;
  report.machine.peak_macs_per_second = 900e9;
  report.machine.multiply = "vpdpbusd";
  report.machine.peaks = {{"vpdpbusd", 900e9}, {"fma", 110e9}};
  report.model = {"llama <7b>", "int4", 128,    false,
                  "bf16",       "int8", "int8", 4'000'000'000};
  BenchRow product;
  product.phase = BenchPhase::kProduct;
  product.matrix = "layer";
  product.activation_rows = 4;
  product.milliseconds = {10, 9, 12};
  product.tokens = 4;
  product.bytes = 4e8;
  product.macs = 3e9;
  product.read_bytes_per_second = 50e9;
  product.peak_macs_per_second = 900e9;
  product.time_ratio_to_one_row = 1.25;
  BenchRow prefill = product;
  prefill.phase = BenchPhase::kPrefill;
  prefill.matrix.clear();
  prefill.activation_rows.reset();
  prefill.time_ratio_to_one_row.reset();
  prefill.prompt_tokens = 512;
  prefill.tokens = 512;
  prefill.milliseconds = {700, 690, 750};
  prefill.macs = 5e11;
  prefill.share_of_products = 0.875;
  BenchRow decode = prefill;
  decode.phase = BenchPhase::kDecode;
  decode.prompt_tokens.reset();
  decode.share_of_products.reset();
  decode.depth = 3072;
  decode.streams = 16;
  decode.milliseconds = {40, 39, 44};
  decode.tokens = 16;
  report.rows = {product, prefill, decode};
  report.skipped = {"decode, depth 9, 1 stream: too <deep>"};
  return report;
}

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_REPORT_TESTING_H_
