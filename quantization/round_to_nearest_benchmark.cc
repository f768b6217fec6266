// Speed of rounding a row that lies in the cache: weights per second, and GB/s
// of bf16 weights that this stands for.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "kernels/cpu.h"
#include "quantization/round_to_nearest.h"
#include "tensor/packed_layout.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

constexpr int64_t kInputs = 4096;

void Report(benchmark::State& state) {
  state.SetItemsProcessed(state.iterations() * kInputs);
  state.SetBytesProcessed(state.iterations() * kInputs * 2);
  state.SetLabel(std::string(IsaName(ActiveIsa())));
}

PackedLayout Layout(const RoundingOptions& options) {
  const auto layout = RoundedLayout(options, /*outputs=*/1, kInputs);
  CHECK_OK(layout.status());
  return *layout;
}

void BM_Survey(benchmark::State& state, RoundingOptions options) {
  const PackedLayout layout = Layout(options);
  const std::vector<float> row =
      testing::RandomValues(1).Normal(kInputs, 0.02f);
  for (auto _ : state) {
    benchmark::DoNotOptimize(SurveyRow(row, layout));
  }
  Report(state);
}

void BM_Round(benchmark::State& state, RoundingOptions options) {
  const PackedLayout layout = Layout(options);
  const std::vector<float> row =
      testing::RandomValues(1).Normal(kInputs, 0.02f);
  std::vector<uint8_t> codes(kInputs), zeros(layout.groups());
  std::vector<float> scales(layout.groups());
  const RoundedRow out = {
      absl::MakeSpan(codes), absl::MakeSpan(scales),
      layout.has_zeros() ? absl::MakeSpan(zeros) : absl::Span<uint8_t>()};
  for (auto _ : state) {
    benchmark::DoNotOptimize(RoundRow(row, layout, out));
    benchmark::DoNotOptimize(codes.data());
  }
  Report(state);
}

#define NIBBLE_BENCHMARKS(name, ...)                                \
  BENCHMARK_CAPTURE(BM_Survey, name, RoundingOptions{__VA_ARGS__}); \
  BENCHMARK_CAPTURE(BM_Round, name, RoundingOptions{__VA_ARGS__})

NIBBLE_BENCHMARKS(int4_g32, 4, 32, false);
NIBBLE_BENCHMARKS(int4_g128, 4, 128, false);
NIBBLE_BENCHMARKS(int4_g128_symmetric, 4, 128, true);
NIBBLE_BENCHMARKS(int8_g128, 8, 128, true);

}  // namespace
}  // namespace nibble
