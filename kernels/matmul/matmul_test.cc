#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/activation.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

struct Mode {
  WeightFormat weights;
  Activations activations;
};

constexpr Mode kModes[] = {{WeightFormat::kF32, Activations::kF32},
                           {WeightFormat::kF32, Activations::kBF16},
                           {WeightFormat::kBF16, Activations::kF32},
                           {WeightFormat::kBF16, Activations::kBF16}};

constexpr int64_t kInputs = 520, kOutputs = 40;

class MatMulTest : public ::testing::Test {
 protected:
  ~MatMulTest() override { EXPECT_TRUE(LimitIsa(BestIsa()).ok()); }

  std::vector<float> Product(const std::vector<float>& x, const Mode& mode) {
    const int64_t rows = static_cast<int64_t>(x.size()) / kInputs;
    const PackedMatrix w =
        Pack(weights_, kOutputs, kInputs, mode.weights, pool_);
    MatMulOptions options;
    options.activations = mode.activations;
    std::vector<float> y(rows * kOutputs);
    MatMul(MatrixView<const float>(x.data(), rows, kInputs), w, options,
           MatrixView<float>(y.data(), rows, kOutputs), pool_);
    return y;
  }

  ThreadPool pool_{2};
  const std::vector<float> weights_ = RandomValues(kInputs * kOutputs, 1);
};

// But for sums of bf16 tiles, which are taken in another order.
TEST_F(MatMulTest, GivesTheSameBitsOnEveryIsa) {
  const std::vector<float> x = RandomValues(14 * kInputs, 2);
  for (const Mode& mode : kModes) {
    ASSERT_TRUE(LimitIsa(Isa::kScalar).ok());
    const std::vector<float> scalar = Product(x, mode);
    for (Isa isa : kAllIsas) {
      if (!CpuSupports(isa)) continue;
      ASSERT_TRUE(LimitIsa(isa).ok());
      if (!SumsInReferenceOrder(
              ChooseKernel(mode.weights, mode.activations, 14))) {
        EXPECT_EQ(mode.activations, Activations::kBF16);
        continue;
      }
      const std::vector<float> y = Product(x, mode);
      EXPECT_EQ(std::memcmp(y.data(), scalar.data(), y.size() * sizeof(float)),
                0)
          << IsaName(isa);
    }
  }
}

TEST_F(MatMulTest, RoundsActivationsToBF16OnlyWhenAsked) {
  if (BestIsa() == Isa::kAmx) {
    ASSERT_TRUE(LimitIsa(Isa::kAvx512Vnni).ok());
  }
  const std::vector<float> x = RandomValues(3 * kInputs, 2);
  for (WeightFormat weights : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const std::vector<float> exact = Product(x, {weights, Activations::kF32});
    const std::vector<float> rounded =
        Product(x, {weights, Activations::kBF16});
    EXPECT_NE(exact, rounded);
    EXPECT_EQ(rounded, Product(RoundedToBF16(x), {weights, Activations::kF32}));
  }
}

TEST_F(MatMulTest, RoundsWeightsToTheDtypeTheyArePackedIn) {
  const std::vector<float> x = RandomValues(kInputs, 2);
  const std::vector<float> f32 =
      Product(x, {WeightFormat::kF32, Activations::kF32});
  const std::vector<float> bf16 =
      Product(x, {WeightFormat::kBF16, Activations::kF32});
  EXPECT_NE(f32, bf16);
}

TEST_F(MatMulTest, ChoosesAVariantOfTheActiveIsa) {
  for (Isa isa : kAllIsas) {
    if (!CpuSupports(isa)) continue;
    ASSERT_TRUE(LimitIsa(isa).ok());
    for (const Mode& mode : kModes) {
      const MatMulKernel& kernel =
          ChooseKernel(mode.weights, mode.activations, 1);
      EXPECT_EQ(kernel.weights, mode.weights);
      EXPECT_TRUE(IsaAllowed(kernel.isa)) << kernel.name;
      if (isa == Isa::kAvx2 || isa == Isa::kAvx512 || isa == Isa::kScalar) {
        EXPECT_EQ(kernel.isa, isa) << kernel.name;
      }
      if (mode.activations == Activations::kF32) {
        EXPECT_EQ(kernel.panel, DType::kF32) << kernel.name;
      }
    }
  }
}

// Integer weights of 2 * `outputs` rows, gate above up, or of `outputs`.
PackedMatrix Integers(int64_t outputs, WeightFormat format) {
  return RandomIntegers(*PackedLayout::Create(format, outputs, kInputs, 128,
                                              format == WeightFormat::kInt8),
                        7)
      .Pack();
}

TEST_F(MatMulTest, Int8ActivationsGiveTheSameBitsOnEveryIsa) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const PackedMatrix w = Integers(kOutputs, format);
    for (int64_t rows : {1, 14, 70}) {
      const std::vector<float> x = RandomValues(rows * kInputs, 2);
      std::vector<float> first;
      for (Isa isa : kAllIsas) {
        if (!CpuSupports(isa)) continue;
        ASSERT_TRUE(LimitIsa(isa).ok());
        MatMulOptions options;
        options.activations = Activations::kInt8;
        std::vector<float> y(rows * kOutputs);
        MatMul(MatrixView<const float>(x.data(), rows, kInputs), w, options,
               MatrixView<float>(y.data(), rows, kOutputs), pool_);
        if (first.empty()) first = y;
        EXPECT_EQ(y, first) << IsaName(isa);
      }
    }
  }
}

TEST_F(MatMulTest, Int8ActivationsOfFloatWeightsAreF32) {
  const std::vector<float> x = RandomValues(3 * kInputs, 2);
  for (WeightFormat weights : {WeightFormat::kF32, WeightFormat::kBF16}) {
    EXPECT_EQ(Product(x, {weights, Activations::kInt8}),
              Product(x, {weights, Activations::kF32}));
  }
}

TEST_F(MatMulTest, IntegersEqualTheirDequantizedWeights) {
  const PackedMatrix w = Integers(kOutputs, WeightFormat::kInt4);
  std::vector<float> weights(kOutputs * kInputs);
  for (int64_t n = 0; n < kOutputs; ++n) {
    DequantizeRow(w, n, absl::MakeSpan(weights).subspan(n * kInputs, kInputs));
  }
  for (Activations activations : {Activations::kF32, Activations::kBF16}) {
    const bool f32 = activations == Activations::kF32;
    const PackedMatrix floats =
        Pack(weights, kOutputs, kInputs,
             f32 ? WeightFormat::kF32 : WeightFormat::kBF16, pool_);
    for (int64_t rows : {1, 9, 30}) {
      if (!SumsInReferenceOrder(
              ChooseKernel(WeightFormat::kInt4, activations, rows))) {
        continue;
      }
      const std::vector<float> x = RandomValues(rows * kInputs, 2);
      MatMulOptions options;
      options.activations = activations;
      std::vector<float> y(rows * kOutputs), want(rows * kOutputs);
      const MatrixView<const float> in(x.data(), rows, kInputs);
      MatMul(in, w, options, MatrixView<float>(y.data(), rows, kOutputs),
             pool_);
      MatMul(in, floats, options,
             MatrixView<float>(want.data(), rows, kOutputs), pool_);
      EXPECT_EQ(y, want);
    }
  }
}

TEST_F(MatMulTest, BiasAndOldValuesAreAddedInThisOrder) {
  constexpr int64_t kRows = 8;
  const PackedMatrix w = Integers(kOutputs, WeightFormat::kInt4);
  const std::vector<float> x = RandomValues(kRows * kInputs, 2);
  const std::vector<float> bias = RandomValues(kOutputs, 3);
  const std::vector<float> old = RandomValues(kRows * kOutputs, 4);
  MatMulOptions options;
  options.activations = Activations::kInt8;
  const MatrixView<const float> in(x.data(), kRows, kInputs);
  std::vector<float> plain(kRows * kOutputs), y = old;
  MatMul(in, w, options, MatrixView<float>(plain.data(), kRows, kOutputs),
         pool_);
  options.bias = bias.data();
  options.accumulate = true;
  MatMul(in, w, options, MatrixView<float>(y.data(), kRows, kOutputs), pool_);
  for (int64_t i = 0; i < kRows * kOutputs; ++i) {
    ASSERT_EQ(y[i], plain[i] + bias[i % kOutputs] + old[i]);
  }
}

// Also where up begins within a record, or the matrix is smaller than one.
TEST_F(MatMulTest, AGatedProductIsTheActivationOfOneHalfTimesTheOther) {
  for (int64_t n : {5, 16, 32, 40, 48, 96, 100, 333}) {
    for (WeightFormat format : {WeightFormat::kInt4, WeightFormat::kBF16}) {
      const PackedMatrix w = format == WeightFormat::kInt4
                                 ? Integers(2 * n, format)
                                 : Pack(RandomValues(2 * n * kInputs, 1), 2 * n,
                                        kInputs, format, pool_);
      const std::vector<float> bias = RandomValues(2 * n, 3);
      for (int64_t rows : {1, 3, 30}) {
        SCOPED_TRACE(testing::Message() << n << " " << rows);
        const std::vector<float> x = RandomValues(rows * kInputs, 2);
        const MatrixView<const float> in(x.data(), rows, kInputs);
        MatMulOptions options;
        options.activations = Activations::kInt8;
        options.bias = bias.data();
        std::vector<float> both(rows * 2 * n), y(rows * n), want(rows * n);
        const MatrixView<float> halves(both.data(), rows, 2 * n);
        MatMul(in, w, options, halves, pool_);
        GatedActivateRows(Activation::kSilu, halves.Columns(0, n),
                          halves.Columns(n, n),
                          MatrixView<float>(want.data(), rows, n), pool_);
        options.gated = Activation::kSilu;
        MatMul(in, w, options, MatrixView<float>(y.data(), rows, n), pool_);
        ASSERT_EQ(y, want);
      }
    }
  }
}

TEST_F(MatMulTest, ScratchDoesNotGrowWhenAProductIsRepeated) {
  const std::vector<float> x = RandomValues(30 * kInputs, 2);
  const Mode mode = {WeightFormat::kBF16, Activations::kBF16};
  Product(x, mode);
  const std::byte* scratch = pool_.Scratch(0);
  for (int i = 0; i < 3; ++i) Product(x, mode);
  EXPECT_EQ(pool_.Scratch(0), scratch);
}

TEST_F(MatMulTest, TableNamesAreUnique) {
  std::vector<std::string> names;
  for (const MatMulKernel& kernel : MatMulKernels()) {
    names.push_back(kernel.name);
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

}  // namespace
}  // namespace nibble
