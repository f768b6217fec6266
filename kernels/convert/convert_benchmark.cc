// Speed of dequantization: GB/s of the weights read, and elements per second.
// The row look-up is what decoding a token does; the tensor is what loading
// does, larger than the caches.
#include <cstring>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/convert/convert.h"
#include "kernels/cpu.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kColumns = 4096;

AlignedBuffer Weights(DType dtype, int64_t rows) {
  const int64_t blocks = rows * kColumns / DTypeBlockElements(dtype);
  // Zeros are as fast as anything else: no instruction here depends on values.
  return AlignedBuffer(blocks * DTypeBlockBytes(dtype),
                       AlignedBuffer::Fill::kZero);
}

void Report(benchmark::State& state, int64_t bytes, int64_t elements) {
  state.SetBytesProcessed(state.iterations() * bytes);
  state.SetItemsProcessed(state.iterations() * elements);
  state.SetLabel(std::string(IsaName(ActiveIsa())));
}

void BM_Row(benchmark::State& state, DType dtype) {
  constexpr int64_t kRows = 16;
  const AlignedBuffer weights = Weights(dtype, kRows);
  const TensorView view{dtype, Shape({kRows, kColumns}), weights.data(),
                        weights.size()};
  Array<float> out(kColumns);
  int64_t row = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(ConvertRowToF32(view, row, out.span()));
    benchmark::DoNotOptimize(out.data());
    row = (row + 1) % kRows;
  }
  Report(state, weights.size() / kRows, kColumns);
}

void BM_Tensor(benchmark::State& state, DType dtype) {
  constexpr int64_t kRows = 4096;
  const AlignedBuffer weights = Weights(dtype, kRows);
  const TensorView view{dtype, Shape({kRows, kColumns}), weights.data(),
                        weights.size()};
  Array<float> out(kRows * kColumns, Array<float>::Fill::kZero);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ConvertToF32(view, out.span()));
  }
  Report(state, weights.size(), kRows * kColumns);
}

#define CONVERT_BENCHMARKS(name, dtype)          \
  BENCHMARK_CAPTURE(BM_Row, name, DType::dtype); \
  BENCHMARK_CAPTURE(BM_Tensor, name, DType::dtype)

CONVERT_BENCHMARKS(f32, kF32);
CONVERT_BENCHMARKS(f16, kF16);
CONVERT_BENCHMARKS(bf16, kBF16);
CONVERT_BENCHMARKS(q8_0, kQ8_0);
CONVERT_BENCHMARKS(q4_0, kQ4_0);
CONVERT_BENCHMARKS(q4_1, kQ4_1);
CONVERT_BENCHMARKS(q5_0, kQ5_0);
CONVERT_BENCHMARKS(q5_1, kQ5_1);
CONVERT_BENCHMARKS(q4_k, kQ4_K);
CONVERT_BENCHMARKS(q5_k, kQ5_K);
CONVERT_BENCHMARKS(q6_k, kQ6_K);

void BM_NarrowToBF16(benchmark::State& state) {
  Array<float> in(kColumns, Array<float>::Fill::kZero);
  Array<BF16> out(kColumns);
  for (auto _ : state) {
    F32ToBF16(in.span(), out.span());
    benchmark::DoNotOptimize(out.data());
  }
  Report(state, kColumns * 4, kColumns);
}
BENCHMARK(BM_NarrowToBF16);

void BM_NarrowToF16(benchmark::State& state) {
  Array<float> in(kColumns, Array<float>::Fill::kZero);
  Array<F16> out(kColumns);
  for (auto _ : state) {
    F32ToF16(in.span(), out.span());
    benchmark::DoNotOptimize(out.data());
  }
  Report(state, kColumns * 4, kColumns);
}
BENCHMARK(BM_NarrowToF16);

}  // namespace
}  // namespace nibble
