// Every row of the table against the formulas in double, and those against
// finite differences.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/activation_type.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/gradient/gradient_kernels.h"
#include "kernels/gradient/reference.h"

namespace nibble {
namespace {

constexpr float kEps = 1e-5f;
constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu,
                                       Activation::kGeluTanh,
                                       Activation::kQuickGelu};

class GradientTest : public VariantTest<GradientKernels> {};

// Values of every size that a row may hold, tails on both sides among them.
std::vector<float> Arguments(int64_t n) {
  std::vector<float> x = NormalNumbers(1).Vector(n, 3.0f);
  const float edges[] = {0.0f, -0.0f, 30.0f, -30.0f,
                         1e4f, -1e4f, 1e30f, -1e30f};
  for (size_t i = 0; i < x.size() && i < 8; ++i) {
    x[x.size() - 1 - i] = edges[i];
  }
  return x;
}

// gate and x gate' are of size 1 and each within some roundings: 16 * 2^-24 of
// what they multiply (a derivative of two terms can cancel, so that the bound
// is not relative to the result).
void ExpectNear(const std::vector<float>& got, const std::vector<float>& want,
                const std::vector<float>& size) {
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 16 * 0x1p-24f * std::abs(size[i]) + 1e-37f)
        << "element " << i << " of " << got.size();
  }
}

TEST_P(GradientTest, ActivationsMatchTheFormula) {
  for (const int64_t n : SweepSizes()) {
    for (const Activation activation : kActivations) {
      const size_t kind = static_cast<size_t>(activation);
      const std::vector<float> x = Arguments(n);
      const std::vector<float> dy = NormalNumbers(2).Vector(n);
      std::vector<float> want(x.size());
      GradientTable()[0].activate[kind](x.data(), dy.data(), n, want.data());
      Misaligned got(dy, static_cast<int>(n % 3));
      kernels().activate[kind](x.data(), got.data(), n, got.data());
      ExpectNear(got.Values(), want, dy);
      EXPECT_TRUE(got.Intact());
    }
  }
}

TEST_P(GradientTest, GatedActivationsMatchTheFormula) {
  for (const int64_t n : SweepSizes()) {
    for (const Activation activation : kActivations) {
      const size_t kind = static_cast<size_t>(activation);
      const std::vector<float> gate = Arguments(n);
      const std::vector<float> up = NormalNumbers(3).Vector(n);
      const std::vector<float> dy = NormalNumbers(2).Vector(n);
      std::vector<float> want_gate(gate.size()), want_up(gate.size());
      GradientTable()[0].gated[kind](gate.data(), up.data(), dy.data(), n,
                                     want_gate.data(), want_up.data());
      Misaligned d_gate(gate, 1), d_up(gate, 2);
      kernels().gated[kind](gate.data(), up.data(), dy.data(), n, d_gate.data(),
                            d_up.data());
      std::vector<float> by_up, by_gate;
      for (size_t i = 0; i < gate.size(); ++i) {
        by_up.push_back(dy[i] * up[i]);
        by_gate.push_back(dy[i] * std::max(std::abs(gate[i]), 1.0f));
      }
      ExpectNear(d_gate.Values(), want_gate, by_up);
      ExpectNear(d_up.Values(), want_up, by_gate);
      EXPECT_TRUE(d_gate.Intact() && d_up.Intact());
    }
  }
}

// Sums of n terms in lanes: n / 8 + 10 roundings at most of the largest term.
TEST_P(GradientTest, NormsMatchTheFormula) {
  for (const int64_t n : SweepSizes()) {
    for (const bool centred : {false, true}) {
      std::vector<float> x = NormalNumbers(4).Vector(n);
      for (float& v : x) v += 0.5f;
      const std::vector<float> weight = NormalNumbers(5).Vector(n);
      const std::vector<float> dy = NormalNumbers(6).Vector(n);
      const std::vector<float> base = NormalNumbers(7).Vector(n);
      const NormGradientRow row = {x.data(), weight.data(), dy.data(),
                                   n,        kEps,          centred};
      std::vector<float> want(x.size());
      GradientTable()[0].norm(row, base.data(), want.data());
      Misaligned got(base, 1);
      kernels().norm(row, got.data(), got.data());
      EXPECT_TRUE(got.Intact());
      std::vector<float> want_weight = base;
      GradientTable()[0].norm_weight(row, want_weight.data());
      Misaligned got_weight(base, 2);
      kernels().norm_weight(row, got_weight.data());
      EXPECT_TRUE(got_weight.Intact());
      // A LayerNorm of one value divides by sqrt(eps).
      const float size = n == 1 && centred ? 1 / std::sqrt(kEps) : 20.0f;
      const float bound = (static_cast<float>(n) / 8 + 10) * 0x1p-24f * size;
      for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_NEAR(got.Values()[i], want[i], bound) << i << " of " << n;
        EXPECT_NEAR(got_weight.Values()[i], want_weight[i], bound)
            << i << " of " << n;
      }
    }
  }
}

// Weights are within 2 ulp of the exponential, the sum's n / 8 roundings, and
// the rounding of scores of up to 100.
TEST_P(GradientTest, AttentionWeightsMatchTheFormula) {
  for (const int64_t n : SweepSizes()) {
    for (const float slope : {0.0f, 0.25f}) {
      const std::vector<float> scores = NormalNumbers(8).Vector(n, 8.0f);
      std::vector<float> want = scores;
      GradientTable()[0].attention_weights(0.125f, slope, n, want.data());
      Misaligned got(scores, 1);
      kernels().attention_weights(0.125f, slope, n, got.data());
      EXPECT_TRUE(got.Intact());
      const float largest = 2 + slope * static_cast<float>(n);
      const float bound = (largest + static_cast<float>(n) / 8 + 8) * 0x1p-23f;
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(got.Values()[i], want[i], bound * want[i] + 1e-36f);
      }
    }
  }
}

// The sum over a row is within n / 16 + 8 roundings of sum |w dw|, below n / 2
// here.
TEST_P(GradientTest, ScoreGradientMatchesTheFormula) {
  for (const int64_t n : SweepSizes()) {
    const std::vector<float> weights = NormalNumbers(9).Vector(n);
    const std::vector<float> d_weights = NormalNumbers(10).Vector(n);
    std::vector<float> want = d_weights;
    GradientTable()[0].score(weights.data(), 0.125f, n, want.data());
    Misaligned got(d_weights, 1);
    kernels().score(weights.data(), 0.125f, n, got.data());
    EXPECT_TRUE(got.Intact());
    const float size = static_cast<float>(n);
    const float bound = (size / 16 + 8) * (size / 2 + 4) * 0x1p-24f;
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got.Values()[i], want[i],
                  0.125f * bound * std::abs(weights[i]));
    }
  }
}

INSTANTIATE_VARIANTS(GradientTest, GradientTable());

// The slope of the activation that the same function gives: a central
// difference with steps of 1e-5 is off by some 1e-10.
TEST(GradientReferenceTest, ActivationsHaveTheirSlopes) {
  for (const Activation activation : kActivations) {
    for (double x = -8; x <= 8; x += 0.37) {
      const double above = reference::ActSlope(activation, x + 1e-5).value;
      const double below = reference::ActSlope(activation, x - 1e-5).value;
      EXPECT_NEAR(reference::ActSlope(activation, x).slope,
                  (above - below) / 2e-5, 1e-8);
    }
  }
}

}  // namespace
}  // namespace nibble
