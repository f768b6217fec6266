#include "kernels/elementwise/activation.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise/activation_kernels.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/reference.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

constexpr Activation kAll[] = {Activation::kSilu, Activation::kGelu,
                               Activation::kGeluTanh, Activation::kQuickGelu};

class ActivationTest : public VariantTest<ActivationKernels> {};
INSTANTIATE_VARIANTS(ActivationTest, ActivationTable());

// Largest |got - exact| in units of 2^-24 |exact|, over [low, high].
double WorstError(const ActivationKernels& kernels, Activation activation,
                  double low, double high) {
  const int64_t n = 200003;
  std::vector<float> x(n);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(low + (high - low) * i / (n - 1));
  }
  std::vector<float> y = x;
  kernels.activate[static_cast<int>(activation)](y.data(), n);
  double worst = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double exact = reference::Act(activation, x[i]);
    if (std::fabs(exact) < 1e-30) {
      EXPECT_NEAR(y[i], exact, 1e-29);
      continue;
    }
    worst = std::max(worst, std::fabs(y[i] - exact) / std::fabs(exact));
  }
  return worst / 0x1p-24;
}

// The figures of the table in activation_kernels.h.
TEST_P(ActivationTest, ErrorsStayWithinTheStatedTable) {
  const double stated[] = {5, 9, 280, 102};
  for (Activation a : kAll) {
    const double near = WorstError(kernels(), a, -3.0, 3.0);
    const double wide = WorstError(kernels(), a, -30.0, 30.0);
    std::cout << kernels().name << " " << static_cast<int>(a) << ": " << near
              << " within 3, " << wide << " within 30\n";
    EXPECT_LE(wide, stated[static_cast<int>(a)]) << static_cast<int>(a);
    EXPECT_LE(near, 20.0) << static_cast<int>(a);
  }
}

// The formulas themselves, from values computed by hand.
TEST_P(ActivationTest, KnownValues) {
  const struct {
    Activation activation;
    float x, y;
  } cases[] = {
      {Activation::kSilu, 1.0f, 0.7310585786f},
      {Activation::kSilu, -2.0f, -0.2384058440f},
      {Activation::kGelu, 1.0f, 0.8413447461f},
      {Activation::kGelu, -2.0f, -0.0455002639f},
      {Activation::kGeluTanh, 1.0f, 0.8411919906f},
      {Activation::kGeluTanh, -2.0f, -0.0454023059f},
      {Activation::kQuickGelu, 1.0f, 0.8457957659f},
      {Activation::kQuickGelu, -2.0f, -0.0643413728f},
  };
  for (const auto& c : cases) {
    float y = c.x;
    kernels().activate[static_cast<int>(c.activation)](&y, 1);
    EXPECT_NEAR(y, c.y, 2e-6 * std::fabs(c.y));
  }
}

TEST_P(ActivationTest, EverySizeAndOffsetGivesTheSameBits) {
  NormalNumbers normal(5);
  for (Activation a : kAll) {
    const auto activate = kernels().activate[static_cast<int>(a)];
    const auto gated = kernels().gated[static_cast<int>(a)];
    for (int64_t n : SweepSizes()) {
      const std::vector<float> x = normal.Vector(n, 4.0f);
      const std::vector<float> up = normal.Vector(n);
      std::vector<float> expected = x;
      for (float& v : expected) activate(&v, 1);
      for (int offset : {0, 1, 5}) {
        Misaligned y(x, offset), out(x, offset), factor(up, offset);
        activate(y.data(), n);
        EXPECT_EQ(y.Values(), expected) << n;
        EXPECT_TRUE(y.Intact());
        gated(out.data(), factor.data(), n, out.data());
        const std::vector<float> got = out.Values();
        for (int64_t i = 0; i < n; ++i) {
          // The reference multiplies before it rounds.
          ASSERT_NEAR(got[i], double{expected[i]} * up[i],
                      0x1p-22 * std::fabs(expected[i] * up[i]) + 2e-45);
        }
        EXPECT_TRUE(out.Intact());
      }
    }
  }
}

TEST_P(ActivationTest, ExtremesAreAsStated) {
  const float inf = std::numeric_limits<float>::infinity();
  for (Activation a : kAll) {
    std::vector<float> x = {0.0f,          -0.0f,  1e30f,   -1e30f,  inf,
                            std::nanf(""), 1e-40f, -1e-40f, -100.0f, 100.0f};
    kernels().activate[static_cast<int>(a)](x.data(), x.size());
    EXPECT_EQ(x[0], 0.0f);
    EXPECT_EQ(x[1], 0.0f);
    EXPECT_EQ(x[2], 1e30f);
    EXPECT_NEAR(x[3], 0.0f, 1e-5f);
    EXPECT_EQ(x[4], inf);
    EXPECT_TRUE(std::isnan(x[5]));
    EXPECT_NEAR(x[6], 5e-41f, 1e-44f);
    EXPECT_NEAR(x[7], -5e-41f, 1e-44f);
    EXPECT_NEAR(x[8], 0.0f, 1e-35f);
    EXPECT_EQ(x[9], 100.0f);
  }
}

TEST(ActivationRowsTest, RowsMatchSingleCalls) {
  ThreadPool pool(3);
  NormalNumbers normal(6);
  const int64_t rows = 50, ffn = 900, stride = 1800;
  const std::vector<float> both = normal.Vector(rows * stride);
  const MatrixView<const float> gate(both.data(), rows, ffn, stride);
  const MatrixView<const float> up(both.data() + ffn, rows, ffn, stride);
  std::vector<float> out(rows * ffn), expected(rows * ffn);
  GatedActivateRows(Activation::kSilu, gate, up, {out.data(), rows, ffn}, pool);
  for (int64_t r = 0; r < rows; ++r) {
    GatedActivate(Activation::kSilu, gate.row_span(r), up.row_span(r),
                  absl::MakeSpan(&expected[r * ffn], ffn));
  }
  EXPECT_EQ(out, expected);
  std::fill(out.begin(), out.end(), 0.0f);
  GatedActivateBlock(Activation::kSilu, gate, up, {out.data(), rows, ffn});
  EXPECT_EQ(out, expected);
  ActivateRows(Activation::kGelu, {out.data(), rows, ffn}, pool);
  Activate(Activation::kGelu, absl::MakeSpan(expected));
  EXPECT_EQ(out, expected);
}

}  // namespace
}  // namespace nibble
