// Time to read the codes, scales and zeros of a matrix in each layout, in
// blocks of 64 rows, on one thread. items_per_second counts codes.
//
//   ./bazelw run //models/quantized:stored_codes_benchmark

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "models/quantized/stored_codes.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

// Llama 7B's down projection.
constexpr int64_t kOutputs = 4096;
constexpr int64_t kInputs = 11008;
constexpr int64_t kRows = 64;

struct Memory {
  std::vector<int32_t> codes;
  std::vector<int32_t> zeros;
  std::vector<F16> scales;
};

ModuleTensors MakeModule(CodeLayout layout, int64_t group_size, bool ordered,
                         Memory& memory) {
  const int64_t groups = kInputs / group_size;
  const int64_t group_words = (groups + 7) / 8;
  Shape codes, zeros, scales = {groups, kOutputs};
  switch (layout) {
    case CodeLayout::kGptq:
      codes = {kInputs / 8, kOutputs};
      zeros = {groups, kOutputs / 8};
      break;
    case CodeLayout::kAwqGemm:
      codes = {kInputs, kOutputs / 8};
      zeros = {groups, kOutputs / 8};
      break;
    case CodeLayout::kAwqGemv:
      codes = {kOutputs, kInputs / 8};
      zeros = {kOutputs, group_words};
      scales = {kOutputs, 8 * group_words};
      break;
    case CodeLayout::kCompressedTensors:
      codes = {kOutputs, kInputs / 8};
      zeros = {kOutputs / 8, groups};
      scales = {kOutputs, groups};
      break;
  }
  testing::RandomValues random(1);
  memory.codes.resize(static_cast<size_t>(codes.elements()));
  memory.zeros.resize(static_cast<size_t>(zeros.elements()));
  for (auto* words : {&memory.codes, &memory.zeros}) {
    for (int32_t& word : *words) word = static_cast<int32_t>(random.Bits());
  }
  memory.scales.assign(static_cast<size_t>(scales.elements()), ToF16(0.01f));
  ModuleTensors module;
  module.layout = layout;
  module.outputs = kOutputs;
  module.inputs = kInputs;
  module.group_size = group_size;
  module.codes = MakeTensorView<int32_t>(memory.codes, codes);
  module.zeros = MakeTensorView<int32_t>(memory.zeros, zeros);
  module.scales = MakeTensorView<F16>(memory.scales, scales);
  if (ordered) {
    module.input_order.resize(static_cast<size_t>(kInputs));
    std::iota(module.input_order.begin(), module.input_order.end(), 0);
    for (int64_t i = kInputs - 1; i > 0; --i) {
      std::swap(module.input_order[i], module.input_order[random.Below(i + 1)]);
    }
  }
  return module;
}

void BM_Read(benchmark::State& state, CodeLayout layout, bool ordered) {
  Memory memory;
  const StoredCodes matrix(MakeModule(layout, state.range(0), ordered, memory),
                           nullptr);
  const size_t groups = static_cast<size_t>(matrix.form().groups());
  std::vector<uint8_t> codes(kRows * kInputs);
  std::vector<float> scales(kRows * groups), zeros(kRows * groups);
  for (auto _ : state) {
    for (int64_t row = 0; row < kOutputs; row += kRows) {
      matrix.Read(row, kRows,
                  {absl::MakeSpan(codes), absl::MakeSpan(scales),
                   absl::MakeSpan(zeros)});
      benchmark::DoNotOptimize(codes.data());
    }
  }
  state.SetItemsProcessed(state.iterations() * kOutputs * kInputs);
}

BENCHMARK_CAPTURE(BM_Read, gptq, CodeLayout::kGptq, false)->Arg(128)->Arg(32);
BENCHMARK_CAPTURE(BM_Read, gptq_ordered, CodeLayout::kGptq, true)->Arg(128);
BENCHMARK_CAPTURE(BM_Read, awq_gemm, CodeLayout::kAwqGemm, false)
    ->Arg(128)
    ->Arg(32);
BENCHMARK_CAPTURE(BM_Read, awq_gemv, CodeLayout::kAwqGemv, false)->Arg(128);
BENCHMARK_CAPTURE(BM_Read, compressed_tensors, CodeLayout::kCompressedTensors,
                  false)
    ->Arg(128)
    ->Arg(32);

}  // namespace
}  // namespace nibble
