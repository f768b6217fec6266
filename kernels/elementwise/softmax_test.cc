#include "kernels/elementwise/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/softmax_kernels.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SoftmaxTest : public VariantTest<SoftmaxKernels> {};
INSTANTIATE_VARIANTS(SoftmaxTest, SoftmaxTable());

double ExactLogSumExp(const std::vector<float>& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0.0;
  for (float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

TEST_P(SoftmaxTest, MatchesFormula) {
  NormalNumbers normal(1);
  for (int64_t n : SweepSizes()) {
    for (int offset : {0, 1, 6}) {
      const std::vector<float> x = normal.Vector(n, 5.0f);
      Misaligned y(x, offset);
      kernels().softmax(y.data(), n);
      const double log_sum = ExactLogSumExp(x);
      const std::vector<float> got = y.Values();
      for (int64_t i = 0; i < n; ++i) {
        // exp 2 ulp, its argument up to 50 rounded once, a sum of n / 8 + 3
        // roundings, the division.
        const double p = std::exp(x[i] - log_sum);
        ASSERT_NEAR(got[i], p, 0x1p-24 * (60.0 + n / 8.0) * p);
      }
      EXPECT_TRUE(y.Intact());
    }
  }
}

TEST_P(SoftmaxTest, HugeScoresDoNotOverflow) {
  std::vector<float> x = {3e38f, -3e38f, 3e38f};
  kernels().softmax(x.data(), 3);
  EXPECT_EQ(x, (std::vector<float>{0.5f, 0.0f, 0.5f}));
}

TEST_P(SoftmaxTest, MinusInfinityHasNoProbability) {
  std::vector<float> x(20, -kInf);
  x[17] = 2.0f;
  kernels().softmax(x.data(), 20);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(x[i], i == 17 ? 1.0f : 0.0f);
}

TEST_P(SoftmaxTest, InputsWithoutASoftmaxGiveNan) {
  for (int64_t n : {1, 16, 19}) {
    std::vector<std::vector<float>> inputs(3, std::vector<float>(n, 1.0f));
    inputs[0].assign(n, -kInf);
    inputs[1][n - 1] = kInf;
    inputs[2][n / 2] = std::nanf("");
    for (std::vector<float>& x : inputs) {
      kernels().softmax(x.data(), n);
      for (float v : x) EXPECT_TRUE(std::isnan(v)) << n;
    }
  }
}

TEST_P(SoftmaxTest, LogSumExpMatchesFormula) {
  NormalNumbers normal(2);
  for (int64_t n : {1, 5, 16, 31, 1000, 1024, 1025, 50257}) {
    const std::vector<float> x = normal.Vector(n, 6.0f);
    // Sums of 64 vectors at a time: 64 roundings, and those of exp.
    EXPECT_NEAR(kernels().log_sum_exp(x.data(), n), ExactLogSumExp(x),
                0x1p-24 * 128)
        << n;
  }
}

TEST_P(SoftmaxTest, LogSumExpOfInfinitiesAndNans) {
  const float nan = std::nanf("");
  std::vector<float> x(20, -kInf);
  EXPECT_EQ(kernels().log_sum_exp(x.data(), 20), -kInf);
  x[19] = nan;
  EXPECT_TRUE(std::isnan(kernels().log_sum_exp(x.data(), 20)));
  x[3] = kInf;
  EXPECT_TRUE(std::isnan(kernels().log_sum_exp(x.data(), 20)));
  x[19] = 1.0f;
  EXPECT_EQ(kernels().log_sum_exp(x.data(), 20), kInf);
  x[3] = nan;
  EXPECT_TRUE(std::isnan(kernels().log_sum_exp(x.data(), 20)));
}

TEST(SoftmaxApiTest, EmptyInputs) {
  Softmax({});
  EXPECT_EQ(LogSumExp({}), -std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace nibble
