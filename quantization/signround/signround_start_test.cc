// What SignRound makes of another method's result.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/block/block_weights.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/signround/signround.h"
#include "quantization/signround/signround_testing.h"
#include "quantization/signround/tuned_matrix.h"
#include "tensor/view.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::ExpectSame;
using ::nibble::testing::GridName;
using ::nibble::testing::IsOk;
using ::nibble::testing::Quick;
using ::nibble::testing::SignRoundTest;

constexpr GridSpec kZeros = {4, 32, CodeOffset::kZeros};

// Enough steps for other codes than the nearest.
SignRoundOptions Trained() {
  SignRoundOptions options = Quick(60);
  options.learning_rate = 1.0 / 60;
  return options;
}

TEST_F(SignRoundTest, StartsFromAnotherMethodsResult) {
  for (const GridSpec& spec : testing::kTrainedGrids) {
    if (spec.bits == 8) continue;
    SCOPED_TRACE(GridName(spec));
    const auto other = TuneSignRound(tiny_.With(spec), Trained(), pool_);
    ASSERT_THAT(other, IsOk());
    SignRoundOptions options = Quick(0);
    for (size_t i = 0; i < kLinearCount; ++i) {
      options.starts[i] = &other->matrices[i];
    }
    const auto result = TuneSignRound(tiny_.With(spec), options, pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(result->start_loss, other->start_loss);
    EXPECT_NEAR(result->best_loss, other->best_loss, 1e-6 * other->best_loss);
    for (size_t i = 0; i < kLinearCount; ++i) {
      ExpectSame(result->matrices[i], other->matrices[i]);
    }
  }
}

// Where training begins: shifts that just give the start's codes.
TEST_F(SignRoundTest, ShiftsGiveTheCodesOfAStart) {
  for (const GridSpec& spec : testing::kTrainedGrids) {
    if (spec.bits == 8) continue;
    SCOPED_TRACE(GridName(spec));
    const auto other = TuneSignRound(tiny_.With(spec), Trained(), pool_);
    const auto nearest = TuneSignRound(tiny_.With(spec), Quick(0), pool_);
    ASSERT_THAT(other, IsOk());
    ASSERT_THAT(nearest, IsOk());
    int64_t moved = 0;
    for (size_t i = 0; i < kLinearCount; ++i) {
      const QuantizedMatrix& start = other->matrices[i];
      TunedMatrix matrix(tiny_.weights.linears[i].view(), spec, pool_);
      matrix.StartFrom(start, pool_);
      QuantizedMatrix result = matrix.MakeResult();
      matrix.Encode(result, pool_);
      ExpectSame(result, start);
      for (size_t j = 0; j < start.codes.size(); ++j) {
        moved += start.codes[j] != nearest->matrices[i].codes[j];
      }
    }
    EXPECT_GT(moved, 0);
  }
}

TEST_F(SignRoundTest, RoundToNearestStaysACandidateBesideAStart) {
  // A start that is worse: every code 0.
  std::vector<QuantizedMatrix> zeros;
  SignRoundOptions options = Quick(0);
  for (const BlockLinear<float>& linear : tiny_.weights.linears) {
    zeros.emplace_back(kZeros, linear.outputs, linear.inputs);
  }
  for (size_t i = 0; i < kLinearCount; ++i) options.starts[i] = &zeros[i];
  const auto result = TuneSignRound(tiny_.With(kZeros), options, pool_);
  const auto plain = TuneSignRound(tiny_.With(kZeros), Quick(0), pool_);
  ASSERT_THAT(result, IsOk());
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(result->best_loss, plain->best_loss);
  ExpectSame(result->matrices[0], plain->matrices[0]);
}

// GPTQ's correction moves some weights by more steps than a shift reaches.
TEST_F(SignRoundTest, KeepsAStartThatShiftsDoNotReach) {
  const auto nearest = TuneSignRound(tiny_.With(kZeros), Quick(0), pool_);
  ASSERT_THAT(nearest, IsOk());
  SignRoundOptions options = Quick(1);
  options.learning_rate = 1e-6;
  for (size_t i = 0; i < kLinearCount; ++i) {
    options.starts[i] = &nearest->matrices[i];
  }
  // The weights move away from what the block is to do, and their codes.
  const MatrixView<float> up = tiny_.weights[LinearId::kUp].view();
  const QuantizedMatrix& codes =
      nearest->matrices[static_cast<size_t>(LinearId::kUp)];
  for (int64_t row = 0; row < up.rows; ++row) {
    const GroupGrid grid = codes.grid(row, 0);
    const bool low = codes.row_codes(row)[0] < 8;
    up.row(row)[0] += (low ? 5.0f : -5.0f) * grid.scale;
  }
  const auto result = TuneSignRound(tiny_.With(kZeros), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->best_iteration, 0);
  EXPECT_NEAR(result->best_loss, nearest->best_loss, 1e-6 * nearest->best_loss);
  for (size_t i = 0; i < kLinearCount; ++i) {
    ExpectSame(result->matrices[i], nearest->matrices[i]);
  }
}

}  // namespace
}  // namespace nibble
