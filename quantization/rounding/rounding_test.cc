// The grids, the search for them, and whole matrices.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/round_to_nearest.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_search.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/bf16.h"
#include "tensor/coded_matrix.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::RandomValues;
using ::nibble::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

// Every kind of grid that there is, for groups of `size`.
std::vector<GridSpec> AllSpecs(int64_t size) {
  std::vector<GridSpec> specs = {{8, size, CodeOffset::kSymmetric}};
  for (const int bits : {2, 3, 4}) {
    for (const CodeOffset offset :
         {CodeOffset::kSymmetric, CodeOffset::kZeros, CodeOffset::kMinimums}) {
      specs.push_back({bits, size, offset});
    }
  }
  return specs;
}

std::string NameOf(const GridSpec& spec) {
  const char* offsets[] = {"symmetric", "zeros", "minimums"};
  return std::to_string(spec.bits) + " bits, " +
         offsets[static_cast<int>(spec.offset)] + ", groups of " +
         std::to_string(spec.group_size);
}

MatrixView<const float> ViewOf(const std::vector<float>& values, int64_t rows) {
  return {values.data(), rows, static_cast<int64_t>(values.size()) / rows};
}

std::vector<float> Decoded(const QuantizedMatrix& matrix) {
  std::vector<float> values(
      static_cast<size_t>(matrix.outputs * matrix.inputs));
  ThreadPool pool(1);
  Dequantize(matrix, {values.data(), matrix.outputs, matrix.inputs}, pool);
  return values;
}

// ---- Grids

TEST(Grid, HandWorkedGroups) {
  const std::vector<float> weights = {-3, 0, 12, 5};
  GroupGrid grid = FitGroup(weights, {4, 32, CodeOffset::kZeros});
  EXPECT_EQ(grid.scale, 1.0f);
  EXPECT_EQ(grid.offset, 3.0f);
  grid = FitGroup(weights, {4, 32, CodeOffset::kSymmetric});
  EXPECT_EQ(grid.scale, -1.5f);
  EXPECT_EQ(grid.offset, 8.0f);
  grid = FitGroup({{7, 9, 22}}, {4, 32, CodeOffset::kMinimums});
  EXPECT_EQ(grid.scale, 1.0f);
  EXPECT_EQ(grid.offset, 7.0f);
  grid = FitGroup({{-3, 3, 1}}, {2, 32, CodeOffset::kZeros});
  EXPECT_EQ(grid.scale, 2.0f);
  EXPECT_EQ(grid.offset, 2.0f);  // 1.5, ties to even
  grid = FitGroup({{-127, 100}}, {8, 32, CodeOffset::kSymmetric});
  EXPECT_EQ(grid.scale, 1.0f);
  EXPECT_EQ(grid.offset, 128.0f);
}

TEST(Grid, EveryCodeDecodesToItself) {
  for (const GridSpec& spec : AllSpecs(32)) {
    SCOPED_TRACE(NameOf(spec));
    const bool symmetric = spec.offset == CodeOffset::kSymmetric;
    const int zeros = symmetric ? 1 : spec.max_code() + 1;
    for (const float scale : {0.0123f, -1.5f, 65504.0f, 1e-30f}) {
      for (int zero = 0; zero < zeros; ++zero) {
        const GroupGrid grid = {
            scale, static_cast<float>(symmetric ? spec.middle_code() : zero)};
        for (int code = spec.min_code(); code <= spec.max_code(); ++code) {
          const float decoded =
              DecodeWeight(static_cast<uint8_t>(code), grid, spec);
          if (spec.offset != CodeOffset::kMinimums) {
            ASSERT_EQ(decoded,
                      scale * (static_cast<float>(code) - grid.offset));
          } else if (scale < 1e-6f && zero > 0) {
            continue;  // lost beside the minimum
          }
          ASSERT_EQ(EncodeWeight(decoded, grid, spec), code)
              << scale << " " << zero;
        }
      }
    }
  }
}

TEST(Grid, ClippingDrawsTheRangeIn) {
  const std::vector<float> weights = {-6, 12, 1};
  GroupGrid grid = FitClippedGroup(weights, 0.5f, {4, 32, CodeOffset::kZeros});
  EXPECT_EQ(grid.scale, ToFloat(ToF16(0.6f)));
  EXPECT_EQ(grid.offset, 5.0f);
  grid = FitClippedGroup(weights, 0.5f, {4, 32, CodeOffset::kSymmetric});
  EXPECT_EQ(grid.scale, -0.75f);
  grid = FitClippedGroup(weights, 0.5f, {4, 32, CodeOffset::kMinimums});
  EXPECT_EQ(grid.offset, -1.5f);
  EXPECT_EQ(grid.scale, ToFloat(ToF16(0.6f)));
  for (const GridSpec& spec : AllSpecs(32)) {
    const GroupGrid whole = FitClippedGroup(weights, 1.0f, spec);
    const GroupGrid fit = FitGroup(weights, spec);
    EXPECT_EQ(whole.scale, fit.scale) << NameOf(spec);
    EXPECT_EQ(whole.offset, fit.offset) << NameOf(spec);
  }
}

TEST(Grid, StoresF16WhereItIsNormal) {
  EXPECT_EQ(StoredParameter(0.1), ToFloat(ToF16(0.1f)));
  EXPECT_EQ(StoredParameter(-0x1p-14), -0x1p-14f);
  EXPECT_EQ(StoredParameter(0x1.234p-15), 0x1.234p-15f);
  EXPECT_EQ(StoredParameter(65519.0), 65504.0f);
  EXPECT_EQ(StoredParameter(65521.0), 65521.0f);
  EXPECT_EQ(StoredParameter(1e-60), kDenormal);
  EXPECT_EQ(StoredParameter(-1e-60), -kDenormal);
  EXPECT_EQ(StoredParameter(0.0), 0.0f);
}

TEST(Grid, RefusesWhatThereIsNot) {
  for (const GridSpec& spec : AllSpecs(64)) {
    EXPECT_THAT(CheckGridSpec(spec), IsOk()) << NameOf(spec);
  }
  EXPECT_THAT(CheckGridSpec({4, kWholeRow, CodeOffset::kZeros}), IsOk());
  for (const int bits : {-1, 0, 1, 5, 6, 7, 9, 16}) {
    EXPECT_THAT(CheckGridSpec({bits, 128, CodeOffset::kSymmetric}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(std::to_string(bits) + " bits")));
  }
  EXPECT_THAT(CheckGridSpec({8, 128, CodeOffset::kZeros}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("always symmetric")));
  for (const int64_t size : {-128, -1, 0, 1, 31, 48, 100}) {
    EXPECT_THAT(CheckGridSpec({4, size, CodeOffset::kZeros}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("group size " + std::to_string(size))));
  }
}

// ---- Matrices

// What round_to_nearest.h makes of the rows.
QuantizedMatrix ByRows(MatrixView<const float> weights, const GridSpec& spec) {
  const bool symmetric = spec.offset == CodeOffset::kSymmetric;
  PackedLayout layout = RoundedLayout({spec.bits, spec.group_size, symmetric},
                                      weights.rows, weights.cols)
                            .value();
  for (int64_t row = 0; row < weights.rows; ++row) {
    layout.wide_scales |=
        SurveyRow(weights.row_span(row), layout).needs_wide_scales;
  }
  QuantizedMatrix out(spec, weights.rows, weights.cols);
  const int64_t groups = out.groups();
  std::vector<uint8_t> zeros(layout.has_zeros() ? groups : 0);
  for (int64_t row = 0; row < weights.rows; ++row) {
    RoundRow(
        weights.row_span(row), layout,
        {out.row_codes(row), out.scales.span().subspan(row * groups, groups),
         absl::MakeSpan(zeros)});
    std::copy(zeros.begin(), zeros.end(),
              out.offsets.data() + (zeros.empty() ? 0 : row * groups));
  }
  return out;
}

void ExpectSame(const QuantizedMatrix& got, const QuantizedMatrix& want) {
  EXPECT_TRUE(std::equal(got.codes.begin(), got.codes.end(), want.codes.begin(),
                         want.codes.end()));
  EXPECT_TRUE(std::equal(got.scales.begin(), got.scales.end(),
                         want.scales.begin(), want.scales.end()));
  EXPECT_TRUE(std::equal(got.offsets.begin(), got.offsets.end(),
                         want.offsets.begin(), want.offsets.end()));
}

TEST(RoundMatrix, IsRoundToNearestBitForBit) {
  RandomValues random(3);
  ThreadPool pool(2);
  for (const int64_t inputs : {1, 31, 33, 100, 257, 1024}) {
    for (const int64_t size : {int64_t{32}, int64_t{128}, kWholeRow}) {
      for (const GridSpec& spec : {GridSpec{4, size, CodeOffset::kZeros},
                                   GridSpec{4, size, CodeOffset::kSymmetric},
                                   GridSpec{8, size, CodeOffset::kSymmetric}}) {
        for (const float deviation : {0.05f, 1e-4f}) {  // f16 and wide scales
          const std::vector<float> w = random.Normal(7 * inputs, deviation);
          RoundOptions options;
          options.spec = spec;
          ExpectSame(RoundMatrix(ViewOf(w, 7), options, pool),
                     ByRows(ViewOf(w, 7), spec));
        }
      }
    }
  }
}

TEST(RoundMatrix, FollowsTheGridWhereThereIsNoOtherDefinition) {
  RandomValues random(5);
  ThreadPool pool(2);
  for (const int64_t inputs : {1, 33, 100}) {
    const std::vector<float> w = random.Normal(5 * inputs, 0.3f);
    for (const GridSpec& spec : AllSpecs(32)) {
      SCOPED_TRACE(NameOf(spec));
      RoundOptions options;
      options.spec = spec;
      const std::vector<float> clip(5 * spec.groups(inputs), 0.8f);
      for (const bool clipped : {false, true}) {
        if (clipped) options.clip = clip;
        const QuantizedMatrix got = RoundMatrix(ViewOf(w, 5), options, pool);
        for (int64_t row = 0; row < 5; ++row) {
          for (int64_t j = 0; j < inputs; ++j) {
            const int64_t first = j / 32 * 32;
            const GroupGrid grid =
                FitClippedGroup(absl::MakeSpan(w).subspan(
                                    row * inputs + first,
                                    std::min<int64_t>(32, inputs - first)),
                                clipped ? 0.8f : 1.0f, spec);
            ASSERT_EQ(got.grid(row, j / 32).scale, grid.scale);
            ASSERT_EQ(got.grid(row, j / 32).offset, grid.offset);
            ASSERT_EQ(got.row_codes(row)[j],
                      EncodeWeight(w[row * inputs + j], grid, spec));
          }
        }
      }
    }
  }
}

TEST(RoundMatrix, IsTheSameOnAnyNumberOfThreads) {
  const std::vector<float> w = RandomValues(7).Normal(37 * 160, 0.1f);
  const std::vector<float> importance =
      RandomValues(8).Uniform(160, 0.0f, 4.0f);
  for (const GridSpec& spec : AllSpecs(64)) {
    for (const bool search : {false, true}) {
      RoundOptions options;
      options.spec = spec;
      options.search = search;
      if (search) options.importance = importance;
      ThreadPool one(1), three(3);
      ExpectSame(RoundMatrix(ViewOf(w, 37), options, three),
                 RoundMatrix(ViewOf(w, 37), options, one));
    }
  }
}

TEST(RoundMatrix, NamesTheFirstWeightThatCannotBeRounded) {
  ThreadPool pool(3);
  std::vector<float> w = RandomValues(9).Normal(10 * 40, 1.0f);
  EXPECT_THAT(CheckWeights(ViewOf(w, 10), pool), IsOk());
  w[9 * 40] = kInfinity;
  for (const float bad : {kInfinity, -kInfinity, 0x1.8p126f,
                          std::numeric_limits<float>::quiet_NaN()}) {
    w[3 * 40 + 17] = bad;
    EXPECT_THAT(CheckWeights(ViewOf(w, 10), pool),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("output 3, input 17")));
  }
}

TEST(QuantizedMatrix, UndoesTheInputOrder) {
  const std::vector<float> w = RandomValues(11).Normal(2 * 64, 1.0f);
  RoundOptions options;
  options.spec = {4, 32, CodeOffset::kZeros};
  ThreadPool pool(1);
  QuantizedMatrix matrix = RoundMatrix(ViewOf(w, 2), options, pool);
  const std::vector<float> plain = Decoded(matrix);
  for (int32_t j = 0; j < 64; ++j) {
    matrix.input_order.push_back(j * 7 % 64);
  }
  const std::vector<float> ordered = Decoded(matrix);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t j = 0; j < 64; ++j) {
      EXPECT_EQ(ordered[row * 64 + j * 7 % 64], plain[row * 64 + j]);
    }
  }
}

// ---- The search

// Groups of several kinds, each with an importance.
struct Group {
  std::vector<float> weights;
  std::vector<float> importance;
};

std::vector<Group> SomeGroups(int64_t size) {
  RandomValues random(13);
  std::vector<Group> groups;
  for (int i = 0; i < 40; ++i) {
    Group group;
    group.weights = i % 4 == 0   ? random.Normal(size, 0.02f)
                    : i % 4 == 1 ? random.Uniform(size, 0.5f, 2.0f)
                    : i % 4 == 2 ? random.Uniform(size, -9.0f, 0.5f)
                                 : random.Normal(size, 100.0f);
    if (i % 5 == 0) group.weights[3] *= 20;
    if (i % 3 != 0) {
      group.importance = random.Uniform(size, 0.0f, 1.0f);
      for (float& value : group.importance) value *= value * value * 1e-3f;
    }
    groups.push_back(group);
  }
  return groups;
}

TEST(SearchGroup, IsNeverWorseThanTheExtremes) {
  for (const int64_t size : {1, 5, 32, 100}) {
    for (const Group& group : SomeGroups(std::max<int64_t>(size, 4))) {
      for (const GridSpec& spec : AllSpecs(32)) {
        const auto error = [&](const GroupGrid& grid) {
          return WeightedError(group.weights, group.importance, grid, spec);
        };
        const GroupGrid found =
            SearchGroup(group.weights, group.importance, spec, {});
        // The sums have importance scaled by its largest in f32.
        EXPECT_LE(error(found),
                  error(FitGroup(group.weights, spec)) * (1 + 1e-6))
            << NameOf(spec);
        EXPECT_EQ(found.scale, StoredParameter(found.scale));
        if (spec.offset == CodeOffset::kMinimums) {
          EXPECT_EQ(found.offset, StoredParameter(found.offset));
        } else {
          EXPECT_EQ(found.offset, std::nearbyint(found.offset));
          EXPECT_GE(found.offset, 0.0f);
          EXPECT_LE(found.offset, static_cast<float>(spec.max_code()));
        }
      }
    }
  }
}

// The best of a fine lattice of scales and offsets.
double BestByExhaustion(const Group& group, const GridSpec& spec) {
  const auto [min, max] =
      std::minmax_element(group.weights.begin(), group.weights.end());
  const float extreme = std::max(std::abs(*min), std::abs(*max));
  double best = std::numeric_limits<double>::infinity();
  const auto consider = [&](const GroupGrid& grid) {
    best = std::min(best,
                    WeightedError(group.weights, group.importance, grid, spec));
  };
  for (int i = 1; i <= 400; ++i) {
    const float scale =
        StoredParameter(extreme * 2.0f * static_cast<float>(i) /
                        (400.0f * static_cast<float>(spec.middle_code() - 1)));
    if (spec.offset == CodeOffset::kSymmetric) {
      for (const float sign : {1.0f, -1.0f}) {
        consider({sign * scale, static_cast<float>(spec.middle_code())});
      }
    } else if (spec.offset == CodeOffset::kZeros) {
      for (int zero = 0; zero <= spec.max_code(); ++zero) {
        consider({scale, static_cast<float>(zero)});
      }
    } else {
      for (int k = -40; k <= 20; ++k) {
        consider({scale, StoredParameter(*min - 0.1f * k * scale)});
      }
    }
  }
  return best;
}

TEST(SearchGroup, ComesCloseToTheBestGridThereIs) {
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits == 8) continue;
    double fitted = 0, found = 0, best = 0;
    for (const Group& group : SomeGroups(32)) {
      const auto relative = [&](double error) {
        return error / WeightedError(group.weights, group.importance, {0, 0},
                                     {4, 32, CodeOffset::kZeros});
      };
      const auto error = [&](const GroupGrid& grid) {
        return relative(
            WeightedError(group.weights, group.importance, grid, spec));
      };
      fitted += error(FitGroup(group.weights, spec));
      found += error(SearchGroup(group.weights, group.importance, spec, {}));
      best += relative(BestByExhaustion(group, spec));
    }
    EXPECT_LT(found, best * 1.05) << NameOf(spec);
    EXPECT_LT(found, fitted * 0.95) << NameOf(spec);
  }
}

// Weights on a grid, in bf16, which is all that a checkpoint made of a
// quantized model has left.
TEST(SearchGroup, RestoresAGridFromItsBf16Values) {
  RandomValues random(17);
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits != 4) continue;
    SCOPED_TRACE(NameOf(spec));
    for (int repeat = 0; repeat < 200; ++repeat) {
      GroupGrid grid;
      grid.scale =
          ToFloat(ToF16(0.01f + 0.02f * static_cast<float>(random.Unit())));
      if (spec.offset == CodeOffset::kSymmetric) {
        grid = {repeat % 2 == 0 ? grid.scale : -grid.scale, 8};
      } else if (spec.offset == CodeOffset::kZeros) {
        grid.offset = static_cast<float>(3 + random.Below(10));
      } else {
        grid.offset =
            ToFloat(ToF16(-0.1f - 0.1f * static_cast<float>(random.Unit())));
      }
      std::vector<float> weights;
      std::vector<int> codes;
      for (int i = 0; i < 32; ++i) {
        // Not always up to the ends.
        const int code =
            1 + repeat % 3 / 2 + static_cast<int>(random.Below(13));
        codes.push_back(code);
        weights.push_back(ToFloat(
            ToBF16(DecodeWeight(static_cast<uint8_t>(code), grid, spec))));
      }
      const GroupGrid found = SearchGroup(weights, {}, spec, {});
      // Least squares move the values by no more than bf16 did, 2^-8 of each;
      // then scale and minimum are rounded to f16, 2^-11 of their parts.
      double error = 0, allowed = 0, parts = 0;
      for (int i = 0; i < 32; ++i) {
        const float want =
            DecodeWeight(static_cast<uint8_t>(codes[i]), grid, spec);
        const float got =
            DecodeWeight(EncodeWeight(weights[i], found, spec), found, spec);
        error += std::pow(got - want, 2);
        allowed += std::pow(want, 2);
        parts += std::pow(std::abs(want) + 2 * std::abs(grid.offset), 2);
      }
      const bool minimums = spec.offset == CodeOffset::kMinimums;
      EXPECT_LT(std::sqrt(error),
                0x1p-8 * std::sqrt(allowed) +
                    0x1p-11 * std::sqrt(minimums ? parts : allowed))
          << repeat << " " << found.scale << " instead of " << grid.scale;
    }
  }
}

// ---- Hostile weights

TEST(SearchGroup, StaysFiniteOnHostileGroups) {
  std::vector<std::vector<float>> groups = {
      std::vector<float>(32, 0.0f),       std::vector<float>(32, 0.37f),
      std::vector<float>(32, -250.0f),    std::vector<float>(32, kDenormal),
      std::vector<float>(32, 0x1p126f),   std::vector<float>(1, -3.0f),
      RandomValues(19).Normal(32, 1e-38f)};
  groups.push_back(RandomValues(21).Normal(32, 0.02f));
  groups.back()[5] = 30000.0f;
  groups.push_back(RandomValues(23).Uniform(32, -0x1p126f, 0x1p126f));
  for (const std::vector<float>& weights : groups) {
    const float most = std::abs(*std::max_element(
        weights.begin(), weights.end(),
        [](float a, float b) { return std::abs(a) < std::abs(b); }));
    for (const bool weighted : {false, true}) {
      const std::vector<float> importance(weighted ? weights.size() : 0, 0.0f);
      for (const GridSpec& spec : AllSpecs(32)) {
        const GroupGrid grid = SearchGroup(weights, importance, spec, {});
        ASSERT_TRUE(std::isfinite(grid.scale)) << NameOf(spec);
        for (const float w : weights) {
          const float got =
              DecodeWeight(EncodeWeight(w, grid, spec), grid, spec);
          // 2 bits have steps as large as a half of the range.
          ASSERT_LE(std::abs(got - w), most * (spec.bits == 2 ? 0.52 : 0.27))
              << NameOf(spec) << " " << w;
        }
      }
    }
  }
}

TEST(SearchGroup, IgnoresWeightsThatDoNotMatter) {
  std::vector<float> weights = RandomValues(25).Normal(32, 0.02f);
  weights[7] = 100.0f;
  std::vector<float> importance(32, 1.0f);
  importance[7] = 0.0f;
  for (const GridSpec& spec : AllSpecs(32)) {
    if (spec.bits != 4) continue;
    const GroupGrid grid = SearchGroup(weights, importance, spec, {});
    const double fitted =
        WeightedError(weights, importance, FitGroup(weights, spec), spec);
    EXPECT_LT(WeightedError(weights, importance, grid, spec), fitted)
        << NameOf(spec);
  }
}

}  // namespace
}  // namespace nibble
