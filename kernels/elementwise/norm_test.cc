#include "kernels/elementwise/norm.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/norm_kernels.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

class NormTest : public VariantTest<NormKernels> {};
INSTANTIATE_VARIANTS(NormTest, NormTable());

// A sum of n positive terms in 8 lanes or more has at most n / 8 + 3 roundings
// in a chain, and so, halved by the root, has the normalised value; a few more
// come from the products after it.
double Relative(int64_t n) { return 0x1p-24 * (n / 8.0 + 12.0); }

TEST_P(NormTest, RmsNormMatchesFormula) {
  NormalNumbers normal(1);
  for (int64_t n : SweepSizes()) {
    for (int offset : {0, 1, 7}) {
      const std::vector<float> x = normal.Vector(n, 3.0f);
      const std::vector<float> weight = normal.Vector(n);
      Misaligned in(x, offset), out(x, offset), w(weight, offset);
      kernels().rms_norm(in.data(), w.data(), n, 1e-5f, out.data());
      double squares = 0.0;
      for (float v : x) squares += double{v} * v;
      const double inverse = 1.0 / std::sqrt(squares / n + 1e-5);
      const std::vector<float> got = out.Values();
      for (int64_t i = 0; i < n; ++i) {
        const double expected = x[i] * inverse * weight[i];
        ASSERT_NEAR(got[i], expected, Relative(n) * std::fabs(expected)) << n;
      }
      EXPECT_TRUE(out.Intact());
    }
  }
}

TEST_P(NormTest, LayerNormMatchesFormulaWithAndWithoutBias) {
  NormalNumbers normal(2);
  for (int64_t n : SweepSizes()) {
    for (bool with_bias : {false, true}) {
      std::vector<float> x = normal.Vector(n, 2.0f);
      for (float& v : x) v += 1.5f;
      const std::vector<float> weight = normal.Vector(n);
      const std::vector<float> bias = normal.Vector(n);
      Misaligned out(x, 3);
      kernels().layer_norm(x.data(), weight.data(),
                           with_bias ? bias.data() : nullptr, n, 1e-5f,
                           out.data());
      double sum = 0.0, magnitude = 0.0, squares = 0.0;
      for (float v : x) sum += v, magnitude += std::fabs(v);
      const double mean = sum / n;
      for (float v : x) squares += (v - mean) * (v - mean);
      const double inverse = 1.0 / std::sqrt(squares / n + 1e-5);
      // The error of the mean shifts every element.
      const double shift = Relative(n) * magnitude / n;
      const std::vector<float> got = out.Values();
      for (int64_t i = 0; i < n; ++i) {
        const double b = with_bias ? bias[i] : 0.0;
        const double scaled = (x[i] - mean) * inverse * weight[i];
        const double tolerance =
            Relative(n) * (std::fabs(scaled) + std::fabs(b)) +
            3.0 * (shift + 0x1p-24 * std::fabs(x[i])) * inverse *
                std::fabs(weight[i]);
        ASSERT_NEAR(got[i], scaled + b, tolerance) << n;
      }
      EXPECT_TRUE(out.Intact());
    }
  }
}

TEST_P(NormTest, ZerosStayZeros) {
  const std::vector<float> x(33, 0.0f), weight(33, 2.0f);
  std::vector<float> out(33, 1.0f);
  kernels().rms_norm(x.data(), weight.data(), 33, 1e-6f, out.data());
  EXPECT_EQ(out, x);
  kernels().layer_norm(x.data(), weight.data(), nullptr, 33, 1e-6f, out.data());
  EXPECT_EQ(out, x);
}

TEST_P(NormTest, WorksInPlace) {
  NormalNumbers normal(3);
  const std::vector<float> weight = normal.Vector(100);
  std::vector<float> x = normal.Vector(100);
  std::vector<float> apart(100);
  kernels().rms_norm(x.data(), weight.data(), 100, 1e-5f, apart.data());
  kernels().rms_norm(x.data(), weight.data(), 100, 1e-5f, x.data());
  EXPECT_EQ(x, apart);
}

TEST_P(NormTest, NanSpoilsTheRow) {
  std::vector<float> x(20, 1.0f), weight(20, 1.0f), out(20);
  x[19] = std::nanf("");
  kernels().rms_norm(x.data(), weight.data(), 20, 1e-5f, out.data());
  for (float v : out) EXPECT_TRUE(std::isnan(v));
}

TEST(NormRowsTest, RowsAreTheSameBitsAsAlone) {
  ThreadPool pool(3);
  NormalNumbers normal(4);
  const int64_t rows = 40, hidden = 1000, stride = 1100;
  const std::vector<float> x = normal.Vector(rows * stride);
  const std::vector<float> weight = normal.Vector(hidden);
  const std::vector<float> bias = normal.Vector(hidden);
  std::vector<float> out(rows * hidden), alone(hidden);
  const MatrixView<const float> in(x.data(), rows, hidden, stride);
  RmsNormRows(in, weight, 1e-5f, {out.data(), rows, hidden}, pool);
  for (int64_t r = 0; r < rows; ++r) {
    RmsNorm(in.row_span(r), weight, 1e-5f, absl::MakeSpan(alone));
    for (int64_t i = 0; i < hidden; ++i)
      ASSERT_EQ(out[r * hidden + i], alone[i]);
  }
  LayerNormRows(in, weight, bias, 1e-5f, {out.data(), rows, hidden}, pool);
  for (int64_t r = 0; r < rows; ++r) {
    LayerNorm(in.row_span(r), weight, bias, 1e-5f, absl::MakeSpan(alone));
    for (int64_t i = 0; i < hidden; ++i)
      ASSERT_EQ(out[r * hidden + i], alone[i]);
  }
}

}  // namespace
}  // namespace nibble
