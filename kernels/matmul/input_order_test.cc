// MatMulOptions::input_order: every variant of the table gives the bits of the
// product with x put in order beforehand.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/matmul/kernel_variants.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

std::vector<int32_t> RandomOrder(int64_t inputs) {
  std::vector<int32_t> order(static_cast<size_t>(inputs));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  return order;
}

// Weights of each kind that a format has.
std::vector<PackedMatrix> WeightsOf(WeightFormat format, int64_t outputs,
                                    int64_t inputs) {
  std::vector<PackedMatrix> weights;
  if (!IsInteger(format)) {
    ThreadPool pool(1);
    weights.push_back(
        Pack(RandomValues(outputs * inputs, 1), outputs, inputs, format, pool));
    return weights;
  }
  const auto add = [&](const PackedLayout& layout) {
    weights.push_back(RandomIntegers(layout, 1).Pack());
  };
  add(*PackedLayout::Create(format, outputs, inputs, 64));
  if (format == WeightFormat::kInt4) {
    add(*PackedLayout::Create(format, outputs, inputs, 32,
                              /*symmetric=*/false));
    add(LayoutWithMinimums(outputs, inputs, 32));
  }
  return weights;
}

class InputOrderTest : public KernelVariantTest {};

TEST_P(InputOrderTest, EqualsTheProductWithPermutedInputs) {
  constexpr int64_t kOutputs = 50;
  ThreadPool pool(2);
  for (int64_t inputs : {1, 33, 320, 1000}) {
    const std::vector<int32_t> order = RandomOrder(inputs);
    for (const PackedMatrix& w :
         WeightsOf(kernel().weights, kOutputs, inputs)) {
      for (int64_t rows : {1, 3, 40}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << inputs);
        GuardedMatrix x(rows, inputs, inputs + 5, /*offset=*/3);
        GuardedMatrix permuted(rows, inputs, inputs, /*offset=*/0);
        const std::vector<float> values = RandomValues(rows * inputs, 2);
        for (int64_t i = 0; i < rows * inputs; ++i) {
          x.set(i / inputs, i % inputs, values[i]);
        }
        for (int64_t i = 0; i < rows * inputs; ++i) {
          permuted.set(i / inputs, i % inputs,
                       x.at(i / inputs, order[i % inputs]));
        }
        MatMulOptions options;
        options.activations = ActivationsOf(kernel());
        std::vector<float> want(rows * kOutputs), got(rows * kOutputs);
        RunKernel(kernel(), permuted.view(), w, options,
                  {want.data(), rows, kOutputs}, pool);
        options.input_order = order.data();
        RunKernel(kernel(), x.view(), w, options, {got.data(), rows, kOutputs},
                  pool);
        ExpectEqualBits(got, want);
        EXPECT_TRUE(x.GuardsIntact());
      }
    }
  }
}

// 513 rows take two passes, and are enough for several threads to gather.
TEST_P(InputOrderTest, HoldsForManyRowsAndGatedOutputs) {
  constexpr int64_t kInputs = 96, kOutputs = 64, kRows = 513;
  const std::vector<int32_t> order = RandomOrder(kInputs);
  const std::vector<float> x = RandomValues(kRows * kInputs, 2);
  std::vector<float> permuted(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    permuted[i] = x[i / kInputs * kInputs + order[i % kInputs]];
  }
  const PackedMatrix w =
      std::move(WeightsOf(kernel().weights, kOutputs, kInputs).back());
  ThreadPool pool(3);
  MatMulOptions options;
  options.activations = ActivationsOf(kernel());
  options.gated = Activation::kSilu;
  std::vector<float> want(kRows * kOutputs / 2), got(want.size());
  RunKernel(kernel(), {permuted.data(), kRows, kInputs}, w, options,
            {want.data(), kRows, kOutputs / 2}, pool);
  options.input_order = order.data();
  RunKernel(kernel(), {x.data(), kRows, kInputs}, w, options,
            {got.data(), kRows, kOutputs / 2}, pool);
  ExpectEqualBits(got, want);
}

std::vector<size_t> AllVariants() {
  std::vector<size_t> all(MatMulKernels().size());
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Table, InputOrderTest,
                         ::testing::ValuesIn(AllVariants()), VariantName);

}  // namespace
}  // namespace nibble
