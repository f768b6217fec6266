// What every phase of bench works with.
#ifndef NIBBLE_APPS_BENCHMARK_BENCH_SESSION_H_
#define NIBBLE_APPS_BENCHMARK_BENCH_SESSION_H_

#include <functional>
#include <string>

#include "apps/benchmark/limit_probe.h"
#include "apps/benchmark/measure.h"
#include "apps/benchmark/report.h"
#include "kernels/machine_limits.h"
#include "kernels/matmul/matmul_options.h"
#include "models/decoder.h"
#include "runtime/engine.h"

namespace nibble {

struct BenchSession {
  Engine& engine;
  LimitProbe& probe;  // on the engine's threads
  int64_t last_level_cache_bytes = 0;
  MeasureOptions measure;
  BenchReport& report;
  // Told what comes next: "prefill 512".
  std::function<void(const std::string&)> progress;
};

// The multiply instruction that bounds a decoder's products.
MultiplyKind MultiplyOf(const Decoder& decoder);

// "int8", "bf16", "f32".
const char* ActivationsName(Activations activations);

// What the report says about the engine's model.
BenchModel DescribeModel(const Engine& engine, const std::string& shape);

}  // namespace nibble

#endif  // NIBBLE_APPS_BENCHMARK_BENCH_SESSION_H_
