#include "quantization/round_to_nearest.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::RandomValues;
using ::nibble::testing::StatusIs;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

constexpr RoundingOptions kAsymmetric = {4, 32, false};
constexpr RoundingOptions kSymmetric = {4, 32, true};
constexpr RoundingOptions kInt8 = {8, 32, true};

std::string NameOf(const RoundingOptions& options) {
  return std::string(options.bits == 8   ? "int8"
                     : options.symmetric ? "symmetric"
                                         : "asymmetric") +
         " groups of " + std::to_string(options.group_size);
}

// A row, rounded, with what it decodes to.
struct Rounded {
  PackedLayout layout;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  std::vector<float> decoded;
  RoundingLoss loss;

  int ZeroOf(int64_t group) const {
    return layout.has_zeros() ? zeros[group]
                              : static_cast<int>(layout.symmetric_zero());
  }
};

Rounded RoundOne(absl::Span<const float> row, const RoundingOptions& options) {
  Rounded result;
  const int64_t inputs = static_cast<int64_t>(row.size());
  const auto layout = RoundedLayout(options, /*outputs=*/1, inputs);
  EXPECT_THAT(layout, IsOk());
  result.layout = *layout;
  const RowSurvey survey = SurveyRow(row, *layout);
  EXPECT_TRUE(survey.in_range);
  result.layout.wide_scales = survey.needs_wide_scales;
  // What a neighbour's code would be must stay.
  result.codes.assign(row.size() + 1, 77);
  result.scales.resize(layout->groups());
  result.zeros.resize(layout->has_zeros() ? layout->groups() : 0);
  result.loss =
      RoundRow(row, result.layout,
               {absl::MakeSpan(result.codes.data(), row.size()),
                absl::MakeSpan(result.scales), absl::MakeSpan(result.zeros)});
  EXPECT_EQ(result.codes.back(), 77);
  result.codes.pop_back();
  for (int64_t i = 0; i < inputs; ++i) {
    const int64_t group = i / result.layout.group_size;
    result.decoded.push_back(
        result.scales[group] *
        static_cast<float>(result.codes[i] - result.ZeroOf(group)));
  }
  return result;
}

// The formulas of the header, one weight at a time.
void CheckAgainstDefinition(absl::Span<const float> row,
                            const RoundingOptions& options) {
  SCOPED_TRACE(NameOf(options));
  const Rounded got = RoundOne(row, options);
  for (int64_t group = 0; group < got.layout.groups(); ++group) {
    const absl::Span<const float> weights =
        row.subspan(group * got.layout.group_size, got.layout.group_size);
    double min = 0, max = 0;
    for (const float w : weights) {
      min = std::min<double>(min, w);
      max = std::max<double>(max, w);
    }
    const bool int8 = options.bits == 8;
    const double exact = int8                ? std::max(-min, max) / 127
                         : options.symmetric ? (max >= -min ? max : min) / -8
                                             : (max - min) / 15;
    float scale = static_cast<float>(exact);
    if (!got.layout.wide_scales) scale = ToFloat(ToF16(scale));
    ASSERT_EQ(got.scales[group], scale) << "group " << group;
    const int zero = got.ZeroOf(group);
    if (got.layout.has_zeros() && scale != 0) {
      ASSERT_EQ(zero, std::min(15.0f, std::nearbyint(static_cast<float>(-min) /
                                                     scale)));
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      const float steps = scale == 0 ? 0.0f : weights[i] / scale;
      const float code = std::nearbyint(steps) + static_cast<float>(zero);
      const float low = int8 ? 1.0f : 0.0f, high = int8 ? 255.0f : 15.0f;
      ASSERT_EQ(got.codes[group * got.layout.group_size + i],
                std::min(std::max(code, low), high))
          << "weight " << weights[i] << " of group " << group;
    }
  }
}

TEST(RoundToNearest, FollowsItsDefinition) {
  RandomValues random(3);
  for (const int64_t inputs : {1, 15, 31, 32, 33, 63, 100, 257, 4544}) {
    for (const int64_t group_size : {32, 64, 128, 1024, 4544}) {
      for (RoundingOptions options : {kAsymmetric, kSymmetric, kInt8}) {
        options.group_size = group_size;
        CheckAgainstDefinition(random.Normal(inputs, 0.05f), options);
        CheckAgainstDefinition(random.Uniform(inputs, 0.0f, 3.0f), options);
        CheckAgainstDefinition(random.Uniform(inputs, -9.0f, -8.0f), options);
      }
    }
  }
}

TEST(RoundToNearest, IsTheSameUnderEveryIsa) {
  const std::vector<float> row = RandomValues(5).Normal(1000, 0.1f);
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded best = RoundOne(row, options);
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2}) {
      if (!CpuSupports(isa)) continue;
      ASSERT_THAT(LimitIsa(isa), IsOk());
      const Rounded limited = RoundOne(row, options);
      ASSERT_THAT(LimitIsa(BestIsa()), IsOk());
      EXPECT_EQ(limited.codes, best.codes);
      EXPECT_EQ(limited.scales, best.scales);
      EXPECT_EQ(limited.zeros, best.zeros);
    }
  }
}

TEST(RoundToNearest, HandWorkedGroups) {
  const std::vector<float> row = {-3, 0, 12, 5, 0.5f, 1.5f};
  Rounded got = RoundOne(row, kAsymmetric);  // scale 1
  EXPECT_THAT(got.scales, ElementsAre(1.0f));
  EXPECT_THAT(got.zeros, ElementsAre(3));
  EXPECT_THAT(got.codes, ElementsAre(0, 3, 15, 8, 3, 5));  // ties to even

  got = RoundOne({16, -3, 0, -14, 5, -16}, kSymmetric);
  EXPECT_THAT(got.scales, ElementsAre(-2.0f));  // 16 comes first: code 0
  EXPECT_THAT(got.codes, ElementsAre(0, 10, 8, 15, 6, 15));

  got = RoundOne({-8, 7, 1}, kSymmetric);
  EXPECT_THAT(got.scales, ElementsAre(1.0f));
  EXPECT_THAT(got.codes, ElementsAre(0, 15, 9));

  got = RoundOne({-127, 127, 2, -126.6f}, kInt8);
  EXPECT_THAT(got.scales, ElementsAre(1.0f));
  EXPECT_THAT(got.codes, ElementsAre(1, 255, 130, 1));
}

TEST(RoundToNearest, WeightsOnTheGridComeBackExactly) {
  RandomValues random(7);
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const int zero = options.bits == 8 ? 128 : options.symmetric ? 8 : 6;
    const int low = options.bits == 8 ? 1 : 0;
    const int high = options.bits == 8 ? 255 : 15;
    std::vector<float> row;
    for (int i = 0; i < 32; ++i) {
      const int code =
          i == 0   ? low
          : i == 1 ? high
                   : low + static_cast<int>(random.Below(high - low + 1));
      row.push_back(static_cast<float>(code - zero) * 0.01171875f);
    }
    EXPECT_EQ(RoundOne(row, options).decoded, row) << NameOf(options);
  }
}

TEST(RoundToNearest, ErrorStaysWithinHalfAStepUnlessTheGridEnds) {
  RandomValues random(11);
  const std::vector<float> row = random.Normal(4096, 1.0f);
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded got = RoundOne(row, options);
    for (size_t i = 0; i < row.size(); ++i) {
      const float step = std::abs(got.scales[i / 32]);
      // Full-range symmetric codes end at 7 on one side: a whole step is lost
      // at most. Asymmetric zero points move the grid by up to half a step.
      const float bound = options.bits == 8 ? 0.5f : 1.0f;
      ASSERT_LE(std::abs(got.decoded[i] - row[i]), bound * step * 1.01f);
    }
  }
}

TEST(RoundToNearest, ReportsTheLossThatDecodingShows) {
  const std::vector<float> row = RandomValues(13).Normal(1000, 0.3f);
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded got = RoundOne(row, options);
    double error = 0, signal = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      error += std::pow(double{row[i]} - double{got.decoded[i]}, 2);
      signal += std::pow(double{row[i]}, 2);
    }
    EXPECT_GT(error, 0);
    EXPECT_NEAR(got.loss.error, error, 1e-4 * error) << NameOf(options);
    EXPECT_NEAR(got.loss.signal, signal, 1e-5 * signal);
  }
}

TEST(RoundToNearest, FinerGroupsAndMoreBitsLoseLess) {
  const std::vector<float> row = RandomValues(17).Normal(8192, 0.02f);
  double previous = 0;
  for (const int64_t group_size : {32, 64, 128, 512, 8192}) {
    const double loss = RoundOne(row, {4, group_size, false}).loss.error;
    EXPECT_GT(loss, previous) << group_size;
    previous = loss;
  }
  EXPECT_LT(RoundOne(row, {8, 8192, true}).loss.error,
            RoundOne(row, {4, 32, false}).loss.error / 10);
}

// ---- Hostile weights

TEST(RoundToNearest, ZerosDecodeToZeros) {
  std::vector<float> row(96, 0.0f);
  row[5] = -0.0f;
  row[64] = 1.0f;  // of the last group only
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded got = RoundOne(row, options);
    EXPECT_FALSE(got.layout.wide_scales) << "a scale of 0 is no small scale";
    EXPECT_EQ(got.scales[0], 0.0f);
    EXPECT_EQ(got.scales[1], 0.0f);
    EXPECT_THAT(absl::MakeSpan(got.decoded).subspan(0, 64), Each(0.0f));
    EXPECT_THAT(absl::MakeSpan(got.codes).subspan(0, 64), Each(got.ZeroOf(0)));
  }
}

TEST(RoundToNearest, ConstantRowsKeepTheirValue) {
  for (const float value : {0.37f, -0.37f, 1e-3f, -250.0f}) {
    const std::vector<float> row(64, value);
    for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
      // What remains is the rounding of the scale to f16.
      EXPECT_THAT(RoundOne(row, options).decoded,
                  Each(::testing::FloatNear(value, std::abs(value) * 0x1p-11f)))
          << NameOf(options);
    }
  }
}

TEST(RoundToNearest, AnOutlierHarmsItsOwnGroupOnly) {
  std::vector<float> row = RandomValues(19).Normal(96, 0.02f);
  row[40] = 30000.0f;
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded got = RoundOne(row, options);
    EXPECT_NEAR(got.decoded[40], 30000.0f, 30000.0f * 0x1p-10f);
    for (const int i : {0, 31, 64, 95}) {
      EXPECT_NEAR(got.decoded[i], row[i], 0.02f) << NameOf(options);
    }
  }
}

TEST(RoundToNearest, ScalesOutsideF16MakeAMatrixWide) {
  // The scale of {value, 0, ...} under each grid.
  const std::pair<RoundingOptions, float> grids[] = {
      {kAsymmetric, 15.0f}, {kSymmetric, 8.0f}, {kInt8, 127.0f}};
  for (const auto& [options, divisor] : grids) {
    for (const float sign : {1.0f, -1.0f}) {
      const auto wide = [&, options = options, divisor = divisor](float scale) {
        std::vector<float> row(32, 0.0f);
        row[7] = sign * scale * divisor;
        const Rounded got = RoundOne(row, options);
        EXPECT_NEAR(got.decoded[7], row[7], std::abs(row[7]) * 0x1p-10f);
        return got.layout.wide_scales;
      };
      EXPECT_FALSE(wide(0x1p-14f)) << NameOf(options);
      EXPECT_TRUE(wide(0x1.ffp-15f)) << NameOf(options);
      EXPECT_FALSE(wide(65504.0f)) << NameOf(options);
      EXPECT_TRUE(wide(65536.0f)) << NameOf(options);
    }
  }
}

TEST(RoundToNearest, DenormalWeightsAreNotFlushed) {
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    SCOPED_TRACE(NameOf(options));
    std::vector<float> row(32, 0.0f);
    row[3] = kDenormal;
    Rounded got = RoundOne(row, options);
    EXPECT_TRUE(got.layout.wide_scales);
    EXPECT_EQ(got.decoded, row);
    row[4] = -3 * kDenormal;
    got = RoundOne(row, options);
    EXPECT_EQ(got.decoded, row);
    row[9] = 1e-39f;
    got = RoundOne(row, options);
    EXPECT_NEAR(got.decoded[9], 1e-39f, 1e-41f);
  }
}

TEST(RoundToNearest, HugeWeightsStayFinite) {
  constexpr float kMax = kMaxRoundedWeight;
  std::vector<float> row = RandomValues(23).Uniform(64, -kMax, kMax);
  row[0] = kMax;
  row[1] = -kMax;
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    const Rounded got = RoundOne(row, options);
    EXPECT_TRUE(got.layout.wide_scales);
    EXPECT_TRUE(std::isfinite(got.scales[0]));
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_NEAR(got.decoded[i] / kMax, row[i] / kMax, 0.13)
          << NameOf(options);
    }
    EXPECT_GT(got.loss.signal, 0);
    EXPECT_TRUE(std::isfinite(got.loss.error / got.loss.signal));
  }
}

TEST(RoundToNearest, SurveySeesEveryValueThatCannotBeRounded) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float above = std::nextafter(kMaxRoundedWeight, kInfinity);
  for (const RoundingOptions& options : {kAsymmetric, kSymmetric, kInt8}) {
    for (const int64_t inputs : {1, 32, 100}) {
      const auto layout = RoundedLayout(options, 1, inputs);
      ASSERT_THAT(layout, IsOk());
      for (const float bad :
           {nan, -nan, kInfinity, -kInfinity, above, -above}) {
        for (const int64_t at : {int64_t{0}, inputs / 2, inputs - 1}) {
          std::vector<float> row(inputs, 1.0f);
          EXPECT_TRUE(SurveyRow(row, *layout).in_range);
          row[at] = bad;
          EXPECT_FALSE(SurveyRow(row, *layout).in_range)
              << bad << " at " << at << " of " << inputs;
        }
      }
    }
  }
}

// ---- Options

TEST(RoundedLayout, TakesWhatTheFormatsAllow) {
  for (const int64_t size : {32, 64, 128, 256, 512, 1024}) {
    const auto layout = RoundedLayout({4, size, false}, 64, 11008);
    ASSERT_THAT(layout, IsOk());
    EXPECT_EQ(layout->format, WeightFormat::kInt4);
    EXPECT_EQ(layout->group_size, size);
    EXPECT_FALSE(layout->symmetric);
    EXPECT_FALSE(layout->wide_scales);
  }
  const auto row = RoundedLayout({4, kWholeRow, true}, 64, 100);
  ASSERT_THAT(row, IsOk());
  EXPECT_EQ(row->group_size, 100);
  EXPECT_EQ(row->groups(), 1);
  const auto int8 = RoundedLayout({8, 128, false}, 64, 4096);
  ASSERT_THAT(int8, IsOk());
  EXPECT_EQ(int8->format, WeightFormat::kInt8);
  EXPECT_TRUE(int8->symmetric);
}

TEST(RoundedLayout, SaysWhatIsWrong) {
  EXPECT_THAT(RoundedLayout({3, 128, false}, 64, 4096),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("3 bits: weights have 4 or 8")));
  for (const int64_t size : {-128, -1, 0, 1, 31, 48, 100}) {
    EXPECT_THAT(RoundedLayout({4, size, false}, 64, 4096),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("group size " + std::to_string(size))));
  }
}

}  // namespace
}  // namespace nibble
