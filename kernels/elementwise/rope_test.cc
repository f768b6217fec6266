#include "kernels/elementwise/rope.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/rope_kernels.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

constexpr double kPi = 3.14159265358979323846;

class RopeTest : public VariantTest<RopeKernels> {};
INSTANTIATE_VARIANTS(RopeTest, RopeKernelTable());

TEST_P(RopeTest, RotatesPairsAndNothingElse) {
  NormalNumbers normal(1);
  for (int64_t pairs : {1, 2, 4, 5, 8, 12, 16, 17, 32, 40, 64, 128}) {
    for (bool interleaved : {false, true}) {
      for (int offset : {0, 3}) {
        const int64_t head_dim = 2 * pairs + 7;  // Partial: 7 pass through.
        const std::vector<float> x = normal.Vector(head_dim);
        std::vector<float> cos(pairs), sin(pairs);
        for (int64_t j = 0; j < pairs; ++j) {
          cos[j] = static_cast<float>(std::cos(0.37 * (j + 1)));
          sin[j] = static_cast<float>(std::sin(0.37 * (j + 1)));
        }
        Misaligned head(x, offset);
        (interleaved ? kernels().interleaved : kernels().half)(
            cos.data(), sin.data(), pairs, head.data());
        std::vector<double> expected(x.begin(), x.end());
        std::vector<double> size(head_dim, 0.0);
        for (int64_t j = 0; j < pairs; ++j) {
          const int64_t a = interleaved ? 2 * j : j;
          const int64_t b = interleaved ? 2 * j + 1 : j + pairs;
          expected[a] = double{x[a]} * cos[j] - double{x[b]} * sin[j];
          expected[b] = double{x[a]} * sin[j] + double{x[b]} * cos[j];
          size[a] = size[b] = std::fabs(x[a]) + std::fabs(x[b]);
        }
        const std::vector<float> got = head.Values();
        for (int64_t i = 0; i < head_dim; ++i) {
          ASSERT_NEAR(got[i], expected[i], 0x1p-23 * size[i]) << pairs;
        }
        EXPECT_TRUE(head.Intact());
      }
    }
  }
}

RopeConfig Config(RopeScaling::Type type, int64_t dims = 64) {
  RopeConfig config;
  config.rotary_dims = dims;
  config.theta = 10000.0;
  config.max_positions = 2048;
  config.scaling.type = type;
  config.scaling.factor = 4.0f;
  config.scaling.original_max_positions = 512;
  return config;
}

double Plain(int64_t j, int64_t dims, double theta) {
  return std::pow(theta, -2.0 * j / dims);
}

TEST(RopeTableTest, FrequenciesFallFromOneByTheta) {
  const RopeTable table(Config(RopeScaling::kNone));
  ASSERT_EQ(table.pairs(), 32);
  for (int64_t j = 0; j < 32; ++j) {
    const double expected = Plain(j, 64, 10000.0);
    EXPECT_NEAR(table.frequencies()[j], expected, 4e-7 * expected);
  }
  EXPECT_EQ(table.attention_factor(), 1.0f);
}

TEST(RopeTableTest, LinearScalingDividesFrequencies) {
  const RopeTable plain(Config(RopeScaling::kNone));
  const RopeTable linear(Config(RopeScaling::kLinear));
  for (int64_t j = 0; j < 32; ++j) {
    EXPECT_EQ(linear.frequencies()[j], plain.frequencies()[j] / 4.0f);
  }
}

TEST(RopeTableTest, Llama3KeepsShortWavesStretchesLongOnesAndBlends) {
  RopeConfig config = Config(RopeScaling::kLlama3);
  config.theta = 500000.0;
  config.scaling.low_freq_factor = 1.0f;
  config.scaling.high_freq_factor = 4.0f;
  const RopeTable table(config);
  int kept = 0, stretched = 0, blended = 0;
  for (int64_t j = 0; j < 32; ++j) {
    const double f = Plain(j, 64, 500000.0);
    const double wave = 2.0 * kPi / f;
    double expected = f;
    if (wave < 512.0 / 4.0) {
      ++kept;
    } else if (wave > 512.0) {
      ++stretched;
      expected = f / 4.0;
    } else {
      ++blended;
      const double t = (512.0 / wave - 1.0) / 3.0;
      expected = (1.0 - t) * f / 4.0 + t * f;
    }
    EXPECT_NEAR(table.frequencies()[j], expected, 2e-6 * expected) << j;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(blended, 0);
}

TEST(RopeTableTest, YarnRampsBetweenCorrectionDimensions) {
  const RopeTable table(Config(RopeScaling::kYarn));
  const auto correction = [](double turns) {
    return 64.0 * std::log(512.0 / (2.0 * kPi * turns)) /
           (2.0 * std::log(10000.0));
  };
  const double low = std::floor(correction(32.0));
  const double high = std::ceil(correction(1.0));
  ASSERT_LT(low, high);
  for (int64_t j = 0; j < 32; ++j) {
    const double f = Plain(j, 64, 10000.0);
    const double ramp = std::clamp((j - low) / (high - low), 0.0, 1.0);
    const double expected = ramp * f / 4.0 + (1.0 - ramp) * f;
    EXPECT_NEAR(table.frequencies()[j], expected, 2e-6 * expected) << j;
  }
  EXPECT_NEAR(table.attention_factor(), 0.1 * std::log(4.0) + 1.0, 1e-6);
  std::vector<float> cos(32), sin(32);
  table.Angles(0, 1, absl::MakeSpan(cos), absl::MakeSpan(sin));
  for (float c : cos) EXPECT_EQ(c, table.attention_factor());
}

TEST(RopeTableTest, YarnTakesAGivenAttentionFactor) {
  RopeConfig config = Config(RopeScaling::kYarn);
  config.scaling.attention_factor = 1.5f;
  EXPECT_EQ(RopeTable(config).attention_factor(), 1.5f);
  config.scaling.attention_factor = 0.0f;
  config.scaling.factor = 1.0f;
  EXPECT_EQ(RopeTable(config).attention_factor(), 1.0f);
}

TEST(RopeTableTest, DynamicScalingStretchesOnlyPastTrainedLength) {
  const RopeTable plain(Config(RopeScaling::kNone));
  const RopeTable dynamic(Config(RopeScaling::kDynamic));
  std::vector<float> cos(32), sin(32), expected_cos(32), expected_sin(32);
  plain.Angles(100, 0, absl::MakeSpan(expected_cos),
               absl::MakeSpan(expected_sin));
  for (int64_t length : {101, 2048}) {
    dynamic.Angles(100, length, absl::MakeSpan(cos), absl::MakeSpan(sin));
    EXPECT_EQ(cos, expected_cos);
    EXPECT_EQ(sin, expected_sin);
  }
  dynamic.Angles(100, 3000, absl::MakeSpan(cos), absl::MakeSpan(sin));
  const double theta = 10000.0 * std::pow(4.0 * 3000 / 2048 - 3.0, 64.0 / 62.0);
  for (int64_t j = 0; j < 32; ++j) {
    const double angle = 100.0 * Plain(j, 64, theta);
    EXPECT_NEAR(cos[j], std::cos(angle), 4e-7 * angle + 1e-7) << j;
    EXPECT_NEAR(sin[j], std::sin(angle), 4e-7 * angle + 1e-7) << j;
  }
}

TEST(RopeTableTest, DivisorsDivideAndAreCopied) {
  RopeConfig config = Config(RopeScaling::kNone);
  const RopeTable plain(config);
  std::vector<float> divisors(32, 1.0f);
  divisors[5] = 8.0f;
  config.frequency_divisors = divisors;
  const RopeTable table(config);
  divisors.assign(32, 1000.0f);
  EXPECT_EQ(table.frequencies()[4], plain.frequencies()[4]);
  EXPECT_EQ(table.frequencies()[5], plain.frequencies()[5] / 8.0f);
}

// transformers rounds 1 / theta^(2j/d) and its product with the position to
// f32. At position 100000 exact arithmetic would differ from it by up to 6e-3
// radian.
TEST(RopeTableTest, AnglesRoundAsFloatTablesDo) {
  const RopeTable table(Config(RopeScaling::kNone));
  std::vector<float> cos(32), sin(32);
  table.Angles(100000, 100001, absl::MakeSpan(cos), absl::MakeSpan(sin));
  for (int64_t j = 0; j < 32; ++j) {
    const float frequency =
        1.0f / static_cast<float>(
                   std::pow(10000.0, static_cast<double>(2.0f * j / 64.0f)));
    const float angle = 100000.0f * frequency;
    EXPECT_EQ(cos[j], static_cast<float>(std::cos(double{angle})));
    EXPECT_EQ(sin[j], static_cast<float>(std::sin(double{angle})));
  }
}

TEST(RopeTableTest, StyleNoneMakesAnEmptyTable) {
  RopeConfig config;
  config.style = RopeStyle::kNone;
  EXPECT_EQ(RopeTable(config).pairs(), 0);
}

TEST(RopeRowsTest, EveryHeadOfEveryRowTurnsAsAlone) {
  ThreadPool pool(2);
  NormalNumbers normal(9);
  const int64_t tokens = 70, heads = 9, head_dim = 64, pairs = 16;
  const int64_t stride = heads * head_dim + 40;
  std::vector<float> x = normal.Vector(tokens * stride);
  const std::vector<float> cos = normal.Vector(tokens * pairs);
  const std::vector<float> sin = normal.Vector(tokens * pairs);
  for (RopeStyle style :
       {RopeStyle::kNone, RopeStyle::kHalf, RopeStyle::kInterleaved}) {
    std::vector<float> expected = x;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        ApplyRope(style, absl::MakeConstSpan(&cos[t * pairs], pairs),
                  absl::MakeConstSpan(&sin[t * pairs], pairs),
                  &expected[t * stride + h * head_dim]);
      }
    }
    ApplyRopeRows(style, {cos.data(), tokens, pairs},
                  {sin.data(), tokens, pairs},
                  {x.data(), tokens, heads * head_dim, stride}, head_dim, pool);
    EXPECT_EQ(x, expected);
  }
}

}  // namespace
}  // namespace nibble
