// Weights and inputs that a method must survive.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/gptq_testing.h"
#include "quantization/gptq/gram.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/coded_matrix.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

class GptqHostile : public ::testing::Test {
 protected:
  // The losses are those of doubles, and rounding to nearest has no lower one.
  void CheckLosses(const Matrix& w, const Gram& gram,
                   const GptqOptions& options, const GptqResult& result) {
    ASSERT_LE(w.rows, kLossRows);  // all rows are sampled
    RoundOptions round;
    round.spec = options.spec;
    round.search = options.search;
    round.importance = gram.mean_squares();
    const std::vector<double> h = Damped(gram, 0.0);
    const std::vector<float> became = Dequantized(result.matrix);
    const std::vector<float> nearest =
        Dequantized(RoundMatrix(w.view(), round, pool_));
    const double loss = Trace(w, became, h);
    const double loss_error = F32TraceError(w, became, h);
    const double nearest_loss = Trace(w, nearest, h);
    const double nearest_error = F32TraceError(w, nearest, h);
    const double rows = static_cast<double>(w.rows);
    EXPECT_NEAR(result.loss * rows, loss, loss_error);
    EXPECT_NEAR(result.nearest_loss * rows, nearest_loss, nearest_error);
    EXPECT_LE(loss, nearest_loss + loss_error + nearest_error);
  }

  // Every combination of options on the matrix; all results must be finite and
  // not lose more than rounding to nearest.
  void CheckAll(const Matrix& w, const Matrix& x) {
    const Gram gram = GramOf(x, pool_);
    for (const CodeOffset offset :
         {CodeOffset::kSymmetric, CodeOffset::kZeros, CodeOffset::kMinimums}) {
      for (const int mode : {0, 1, 2, 3, 4}) {
        GptqOptions options;
        options.spec = {4, 32, offset};
        options.act_order = mode & 1;
        options.static_groups = mode & 2;
        options.search = mode >= 3;
        options.refinements = mode == 4 ? 2 : 0;
        const absl::StatusOr<GptqResult> result =
            QuantizeGptq(w.view(), gram, options, pool_);
        ASSERT_THAT(result, IsOk());
        for (const float value : Dequantized(result->matrix)) {
          ASSERT_TRUE(std::isfinite(value));
        }
        CheckLosses(w, gram, options, *result);
      }
    }
  }

  ThreadPool pool_{2};
  Matrix w_ = NormalMatrix(40, 72, 0.2f, 3);
  Matrix x_ = CorrelatedInputs(300, 72, 4);
};

TEST_F(GptqHostile, DeadInputsAreRoundedToNearestAndDisturbNothing) {
  for (int64_t t = 0; t < x_.rows; ++t) x_.at(t, 5) = x_.at(t, 71) = 0.0f;
  CheckAll(w_, x_);
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kZeros};
  options.static_groups = true;
  const absl::StatusOr<GptqResult> result =
      QuantizeGptq(w_.view(), GramOf(x_, pool_), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_FALSE(result->fell_back_to_nearest);
  RoundOptions round;
  round.spec = options.spec;
  const QuantizedMatrix nearest = RoundMatrix(w_.view(), round, pool_);
  for (int64_t r = 0; r < w_.rows; ++r) {
    EXPECT_EQ(result->matrix.row_codes(r)[5], nearest.row_codes(r)[5]);
    EXPECT_EQ(result->matrix.row_codes(r)[71], nearest.row_codes(r)[71]);
  }
}

TEST_F(GptqHostile, AllInputsDead) {
  Matrix vanishing = x_;
  for (float& value : vanishing.values) value *= 1e-30f;
  std::fill(x_.values.begin(), x_.values.end(), 0.0f);
  for (const Matrix& x : {x_, vanishing}) {
    CheckAll(w_, x);
    const Gram gram = GramOf(x, pool_);
    ASSERT_THAT(gram.mean_squares(), ::testing::Each(0.0f));
    for (const GridSpec& spec : SomeSpecs()) {
      for (const bool is_static : {false, true}) {
        for (const int refinements : {0, 2}) {
          GptqOptions options = OptionsOf(spec);
          options.act_order = options.static_groups = is_static;
          options.refinements = refinements;
          ExpectSameBits(Quantize(w_, gram, options).matrix,
                         NearestOf(w_, spec));
        }
      }
    }
  }
}

// Slopes and widths of a code, weights times second moments, underflow.
TEST_F(GptqHostile, RefinementKeepsCodesWhereItsProductsUnderflow) {
  for (float& value : x_.values) value *= 1e-20f;
  for (float& value : w_.values) value *= 1e-10f;
  const Gram gram = GramOf(x_, pool_);
  ASSERT_THAT(gram.mean_squares(), ::testing::Each(::testing::Gt(0.0f)));
  for (const GridSpec& spec : SomeSpecs()) {
    GptqOptions options = OptionsOf(spec);
    const GptqResult before = Quantize(w_, gram, options);
    options.refinements = 2;
    ExpectSameBits(Quantize(w_, gram, options).matrix, before.matrix);
  }
}

TEST_F(GptqHostile, DuplicateAndConstantInputs) {
  for (int64_t t = 0; t < x_.rows; ++t) {
    for (int64_t j = 1; j < 10; ++j) x_.at(t, j) = x_.at(t, 0);
    x_.at(t, 20) = 3.0f;
    x_.at(t, 21) = -3.0f;
  }
  CheckAll(w_, x_);
}

TEST_F(GptqHostile, HugeOutliers) {
  for (int64_t t = 0; t < x_.rows; ++t) x_.at(t, 11) *= 1e4f;
  x_.at(7, 30) = 1e6f;
  CheckAll(w_, x_);
  w_.at(3, 11) = 30000.0f;
  w_.at(4, 12) = -1e20f;
  CheckAll(w_, x_);
}

TEST_F(GptqHostile, FloatInputsThatHaveNothingToDoWithTheOthers) {
  const Matrix other = CorrelatedInputs(300, 72, 7);
  Gram gram(72);
  gram.AddPair(x_.view(), other.view(), pool_);
  gram.Finish(pool_);
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kZeros};
  options.correction = 1;
  options.refinements = 2;
  const absl::StatusOr<GptqResult> result =
      QuantizeGptq(w_.view(), gram, options, pool_);
  ASSERT_THAT(result, IsOk());
  for (const float value : Dequantized(result->matrix)) {
    ASSERT_TRUE(std::isfinite(value));
  }
}

TEST_F(GptqHostile, TinyInputs) {
  for (float& value : x_.values) value *= 1e-15f;
  CheckAll(w_, x_);
}

// ---- Too few tokens

TEST_F(GptqHostile, FewerTokensThanInputs) {
  for (const int64_t tokens : {2, 10, 71}) {
    const Matrix few = {
        tokens, 72, {x_.values.begin(), x_.values.begin() + tokens * 72}};
    CheckAll(w_, few);
  }
}

TEST_F(GptqHostile, SingularMomentsWithoutDampingClimbTheLadder) {
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kZeros};
  options.damping = 0;
  // With ones the elimination is exact, and the second pivot 0.
  const Matrix ones = {4, 72, std::vector<float>(4 * 72, 1.0f)};
  const Gram gram = GramOf(ones, pool_);
  const absl::StatusOr<GptqResult> result =
      QuantizeGptq(w_.view(), gram, options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_FALSE(result->fell_back_to_nearest);
  EXPECT_NEAR(result->damping_used, 0.01, 1e-12);
  CheckLosses(w_, gram, options, *result);
  EXPECT_LT(result->loss, 0.1 * result->nearest_loss);
}

TEST_F(GptqHostile, NoTokensMeanRoundToNearest) {
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kSymmetric};
  options.act_order = true;
  const absl::StatusOr<GptqResult> result =
      QuantizeGptq(w_.view(), GramOf({0, 72, {}}, pool_), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_TRUE(result->fell_back_to_nearest);
  RoundOptions round;
  round.spec = options.spec;
  ExpectSameBits(result->matrix, RoundMatrix(w_.view(), round, pool_));
}

TEST_F(GptqHostile, LessThanTheLeastShareOfTokensMeansRoundToNearest) {
  const Matrix w = NormalMatrix(8, 256, 0.2f, 5);
  const Matrix x = CorrelatedInputs(4, 256, 6);
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kSymmetric};
  for (const int64_t tokens : {3, 4}) {
    const Matrix few = {
        tokens, 256, {x.values.begin(), x.values.begin() + tokens * 256}};
    const absl::StatusOr<GptqResult> result =
        QuantizeGptq(w.view(), GramOf(few, pool_), options, pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(result->fell_back_to_nearest, tokens == 3);
  }
}

// ---- Weights

TEST_F(GptqHostile, ZeroConstantAndDenormalWeights) {
  for (const float value : {0.0f, 0.37f, -250.0f, kDenormal, 1e-39f, 1e30f}) {
    Matrix w = w_;
    std::fill(w.values.begin(), w.values.begin() + 20 * 72, value);
    std::fill(w.values.begin() + 30 * 72, w.values.begin() + 30 * 72 + 32,
              0.0f);
    CheckAll(w, x_);
  }
}

TEST_F(GptqHostile, ZeroWeightsStayZero) {
  std::fill(w_.values.begin(), w_.values.end(), 0.0f);
  GptqOptions options;
  options.spec = {4, 32, CodeOffset::kZeros};
  const absl::StatusOr<GptqResult> result =
      QuantizeGptq(w_.view(), GramOf(x_, pool_), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_THAT(Dequantized(result->matrix), ::testing::Each(0.0f));
}

TEST_F(GptqHostile, InfiniteWeightsAreRefused) {
  const Gram gram = GramOf(x_, pool_);
  GptqOptions options;
  for (const float bad :
       {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    w_.at(17, 3) = bad;
    EXPECT_THAT(QuantizeGptq(w_.view(), gram, options, pool_),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("output 17, input 3")));
  }
}

TEST_F(GptqHostile, InputsThatAreNotFiniteAreRefused) {
  x_.at(3, 3) = kInfinity;
  EXPECT_THAT(QuantizeGptq(w_.view(), GramOf(x_, pool_), {}, pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("calibration inputs")));
}

TEST_F(GptqHostile, ContradictoryOptionsAreRefused) {
  const Gram gram = GramOf(x_, pool_);
  const auto expect = [&](const GptqOptions& options, const char* message) {
    EXPECT_THAT(
        QuantizeGptq(w_.view(), gram, options, pool_),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  GptqOptions options;
  options.damping = -0.01;
  expect(options, "damping -0.01");
  options = {};
  options.damping = kInfinity;
  expect(options, "damping inf");
  options = {};
  options.block = 0;
  expect(options, "blocks of 0");
  options = {};
  options.spec.bits = 5;
  expect(options, "5 bits");
  options = {};
  options.correction = 0.25;
  expect(options, "float inputs");
}

}  // namespace
}  // namespace nibble
