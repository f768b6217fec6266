#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"

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
