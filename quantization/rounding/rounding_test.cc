// Grids and whole matrices.
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
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "quantization/rounding/rounding_testing.h"
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

// No packed layout holds such groups.
TEST(RoundMatrix, RoundsRowsLongerThanAPackedGroup) {
  RandomValues random(6);
  ThreadPool pool(2);
  const GridSpec specs[] = {{8, kWholeRow, CodeOffset::kSymmetric},
                            {4, kWholeRow, CodeOffset::kSymmetric},
                            {4, kWholeRow, CodeOffset::kZeros}};
  for (const GridSpec& spec : specs) {
    SCOPED_TRACE(NameOf(spec));
    const int64_t inputs =
        (spec.bits == 8 ? int64_t{1} << 16 : int64_t{1} << 20) + 1;
    const std::vector<float> w = random.Normal(2 * inputs, 0.3f);
    ASSERT_FALSE(RoundedLayout({spec.bits, kWholeRow,
                                spec.offset == CodeOffset::kSymmetric},
                               2, inputs)
                     .ok());
    RoundOptions options;
    options.spec = spec;
    const QuantizedMatrix got = RoundMatrix(ViewOf(w, 2), options, pool);
    for (int64_t row = 0; row < 2; ++row) {
      const absl::Span<const float> weights =
          absl::MakeConstSpan(w).subspan(row * inputs, inputs);
      const GroupGrid grid = FitGroup(weights, spec);
      ASSERT_EQ(got.grid(row, 0).scale, grid.scale);
      ASSERT_EQ(got.grid(row, 0).offset, grid.offset);
      for (int64_t j = 0; j < inputs; ++j) {
        ASSERT_EQ(got.row_codes(row)[j], EncodeWeight(weights[j], grid, spec));
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

}  // namespace
}  // namespace nibble
