// SignRound on a small block: what it keeps, what it refuses.
#include "quantization/signround/signround.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "quantization/signround/signround_testing.h"
#include "quantization/signround/tuned_matrix.h"
#include "quantization/tuning/block_objective.h"
#include "quantization/tuning/trained_block.h"
#include "quantization/tuning/training_testing.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::Converted;
using ::nibble::testing::Dequantized;
using ::nibble::testing::ExpectSame;
using ::nibble::testing::GridName;
using ::nibble::testing::IsOk;
using ::nibble::testing::Quick;
using ::nibble::testing::RandomValues;
using ::nibble::testing::SignRoundTest;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyDecoderConfig;
using ::nibble::testing::TinyTraining;
using ::testing::HasSubstr;

constexpr GridSpec kZeros = {4, 32, CodeOffset::kZeros};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_F(SignRoundTest, NoIterationsAreRoundToNearest) {
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    const auto result = TuneSignRound(tiny_.With(spec), Quick(0), pool_);
    ASSERT_THAT(result, IsOk());
    for (size_t i = 0; i < kLinearCount; ++i) {
      RoundOptions nearest;
      nearest.spec = spec;
      ExpectSame(result->matrices[i],
                 RoundMatrix(tiny_.weights.linears[i].view(), nearest, pool_));
    }
    EXPECT_EQ(result->best_iteration, 0);
    EXPECT_EQ(result->best_loss, result->start_loss);
  }
}

TEST_F(SignRoundTest, StaysAtRoundToNearestWhereNoIterateIsBetter) {
  // Rates at which every step takes codes to anywhere.
  SignRoundOptions options = Quick(3);
  options.learning_rate = 1.0;
  const auto result = TuneSignRound(tiny_.With(kZeros), options, pool_);
  const auto nearest = TuneSignRound(tiny_.With(kZeros), Quick(0), pool_);
  ASSERT_THAT(result, IsOk());
  ASSERT_THAT(nearest, IsOk());
  EXPECT_EQ(result->best_iteration, 0);
  EXPECT_EQ(result->best_loss, result->start_loss);
  for (size_t i = 0; i < kLinearCount; ++i) {
    ExpectSame(result->matrices[i], nearest->matrices[i]);
  }
}

TEST_F(SignRoundTest, EndsWhereItWouldNotComeBack) {
  SignRoundOptions options = Quick(40);
  options.learning_rate = 1.0;
  const auto far = TuneSignRound(tiny_.With(kZeros), options, pool_);
  ASSERT_THAT(far, IsOk());
  EXPECT_EQ(far->iterations, 20);
  const auto near = TuneSignRound(tiny_.With(kZeros), Quick(40), pool_);
  ASSERT_THAT(near, IsOk());
  EXPECT_EQ(near->iterations, 40);
}

TEST_F(SignRoundTest, LossIsThatOfTheResultAndNeverAboveRoundToNearest) {
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    const auto result = TuneSignRound(tiny_.With(spec), Quick(20), pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_LE(result->best_loss, result->start_loss);
    // The values that were judged are those that the codes stand for.
    const double loss =
        tiny_.LossOf(Dequantized(tiny_.weights, *result, pool_), pool_);
    EXPECT_NEAR(result->best_loss, loss, 1e-5 * loss);
  }
}

TEST_F(SignRoundTest, WinsOnInputsThatHangTogether) {
  for (const GridSpec& spec : testing::kTrainedGrids) {
    if (spec.bits == 8) continue;
    SCOPED_TRACE(GridName(spec));
    SignRoundOptions options = Quick(60);
    options.learning_rate = 1.0 / 60;
    const auto result = TuneSignRound(tiny_.With(spec), options, pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_LT(result->best_loss, 0.9 * result->start_loss);
    EXPECT_GT(result->best_iteration, 0);
  }
}

TEST_F(SignRoundTest, SameBitsOnAnyNumberOfThreads) {
  ThreadPool one(1), three(3);
  SignRoundOptions options = Quick(6);
  options.precision.reset();
  const auto first = TuneSignRound(tiny_.With(kZeros), options, one);
  const auto second = TuneSignRound(tiny_.With(kZeros), options, three);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->best_loss, second->best_loss);
  EXPECT_EQ(first->best_iteration, second->best_iteration);
  for (size_t i = 0; i < kLinearCount; ++i) {
    ExpectSame(first->matrices[i], second->matrices[i]);
  }
}

TEST_F(SignRoundTest, MatricesWithoutGridStayFloat) {
  TrainedBlock trained = tiny_.With(kZeros);
  trained.grids[static_cast<size_t>(LinearId::kDown)].reset();
  trained.grids[static_cast<size_t>(LinearId::kQkv)].reset();
  const auto result = TuneSignRound(trained, Quick(10), pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->matrices[0].outputs, 0);
  EXPECT_EQ(result->matrices[3].outputs, 0);
  const double loss =
      tiny_.LossOf(Dequantized(tiny_.weights, *result, pool_), pool_);
  EXPECT_NEAR(result->best_loss, loss, 1e-5 * loss);
}

TEST_F(SignRoundTest, DeadConstantAndHugeChannelsStayFinite) {
  const MatrixView<float> up = tiny_.weights[LinearId::kUp].view();
  for (int64_t i = 0; i < up.rows; ++i) {
    up.row(i)[3] = 0.0f;
    up.row(i)[4] = 0.25f;
  }
  std::fill_n(up.row(5), up.cols, 0.0f);
  std::fill_n(up.row(6), up.cols, 1e-41f);
  up.row(7)[9] = 1e4f;
  tiny_.StoreTargets(pool_);
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    const auto result = TuneSignRound(tiny_.With(spec), Quick(8), pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_TRUE(std::isfinite(result->best_loss));
    for (const auto& l : Dequantized(tiny_.weights, *result, pool_).linears) {
      for (const float w : l.weight) ASSERT_TRUE(std::isfinite(w));
    }
  }
}

TEST_F(SignRoundTest, RefusesALossThatIsNoNumber) {
  for (float& w : tiny_.weights[LinearId::kUp].weight) w *= 1e15f;
  for (float& w : tiny_.weights[LinearId::kDown].weight) w *= 1e15f;
  EXPECT_THAT(TuneSignRound(tiny_.With(kZeros), Quick(4), pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("layers.1: the distance")));
}

TEST_F(SignRoundTest, KeepsWhatItHasWhenTheLossIsNoNumberLater) {
  // 32 of 40 windows are fixed; the broken ones come in batches alone.
  TinyTraining tiny(TinyDecoderConfig(), pool_, /*windows=*/40);
  const std::vector<float> broken(
      static_cast<size_t>(TinyTraining::kLength * tiny.config.hidden),
      kInfinity);
  for (const int64_t window : {4, 9, 14}) {  // not i * 40 / 32 for any i
    tiny.targets.Store(
        window,
        MatrixView<const float>(broken.data(), TinyTraining::kLength,
                                tiny.config.hidden),
        pool_);
  }
  const auto result = TuneSignRound(tiny.With(kZeros), Quick(40), pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_TRUE(std::isfinite(result->best_loss));
  EXPECT_LE(result->best_loss, result->start_loss);
  EXPECT_LT(result->best_iteration, 40);
}

TEST_F(SignRoundTest, RefusesWeightsThatAreNoNumbers) {
  tiny_.weights[LinearId::kUp].weight[7] = kInfinity;
  EXPECT_THAT(TuneSignRound(tiny_.With(kZeros), Quick(4), pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("layers.1.up.weight")));
}

TEST_F(SignRoundTest, RefusesOptionsOutOfRange) {
  const auto status = [&](auto change) {
    SignRoundOptions options = Quick(4);
    change(options);
    return TuneSignRound(tiny_.With(kZeros), options, pool_).status();
  };
  const auto invalid = [](const char* text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  EXPECT_THAT(status([](auto& o) { o.iterations = -1; }),
              invalid("-1 iterations"));
  EXPECT_THAT(status([](auto& o) { o.batch = 0; }), invalid("0 windows"));
  EXPECT_THAT(status([](auto& o) { o.learning_rate = 0.0; }),
              invalid("learning rate 0"));
  EXPECT_THAT(status([](auto& o) { o.learning_rate = std::nan(""); }),
              invalid("learning rate"));
  EXPECT_THAT(status([](auto& o) { o.momentum = 1.0; }), invalid("momentum 1"));
  EXPECT_THAT(TuneSignRound(tiny_.With(GridSpec{5, 32}), Quick(4), pool_),
              invalid("5 bits"));
}

TEST_F(SignRoundTest, RefusesStatesThatDoNotFit) {
  TrainedBlock trained = tiny_.With(kZeros);
  const HiddenStates none(0, 12, 32), narrow(10, 12, 16);
  trained.targets = &narrow;
  EXPECT_THAT(TuneSignRound(trained, Quick(4), pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("targets [10, 12, 16]")));
  trained.inputs = &none;
  EXPECT_THAT(TuneSignRound(trained, Quick(4), pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at least one window")));
}

TEST_F(SignRoundTest, StopsWhenCancelled) {
  SignRoundOptions options = Quick(1000000);
  int64_t asked = 0;
  options.cancelled = [&] { return ++asked == 3; };
  EXPECT_THAT(TuneSignRound(tiny_.With(kZeros), options, pool_),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("SignRound")));
  EXPECT_EQ(asked, 3);
}

TEST(TunedMatrixTest, ValuesAreThoseOfTheCodesAfterEveryStep) {
  ThreadPool pool(2);
  constexpr int64_t kRows = 5, kInputs = 75;  // a last group of 11
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    RandomValues random(3);
    const std::vector<float> weights = random.Normal(kRows * kInputs, 0.1f);
    TunedMatrix matrix(MatrixView<const float>(weights.data(), kRows, kInputs),
                       spec, pool);
    QuantizedMatrix codes = matrix.MakeResult();
    for (int step = 0; step < 4; ++step) {
      std::vector<float> values = random.Normal(kRows * kInputs, 1.0f);
      std::vector<float> decoded(values.size());
      matrix.Descend({3000, 0.1f},
                     MatrixView<float>(values.data(), kRows, kInputs), pool);
      matrix.Encode(codes, pool);
      Dequantize(codes, MatrixView<float>(decoded.data(), kRows, kInputs),
                 pool);
      EXPECT_EQ(values, decoded) << "after step " << step;
      matrix.Decode(MatrixView<float>(decoded.data(), kRows, kInputs), pool);
      EXPECT_EQ(values, decoded) << "after step " << step;
    }
  }
}

// The gradient that training follows, through block and mean, by differences.
TEST_F(SignRoundTest, ObjectiveGradientsAreThoseOfTheLoss) {
  BlockObjective objective(tiny_.With(kZeros), GemmPrecision::kF32, pool_);
  // Away from the targets' weights, where gradients are 0.
  RandomValues random(8);
  for (const LinearId id : kAllLinears) {
    BlockLinear<float>& linear = tiny_.weights[id];
    const std::vector<float> noise =
        random.Normal(static_cast<int64_t>(linear.weight.size()), 0.05f);
    for (size_t i = 0; i < noise.size(); ++i) linear.weight[i] += noise[i];
    objective.block().SetLinear(id, linear.view(), pool_);
  }
  const std::vector<int64_t> windows = {1, 4, 7};
  objective.LossesAndGradients(windows, pool_);
  for (const LinearId id : kAllLinears) {
    BlockLinear<float>& linear = tiny_.weights[id];
    // Along the gradient itself: the loss changes by |G|^2 per unit.
    const MatrixView<float> g = objective.gradient(id);
    const std::vector<float> gradient(g.data, g.data + linear.weight.size());
    double square = 0;
    for (const float x : gradient) square += static_cast<double>(x) * x;
    const double step = 1e-2 / std::sqrt(square);
    double losses[2];
    for (const int side : {0, 1}) {
      std::vector<float> moved(linear.weight.begin(), linear.weight.end());
      for (size_t i = 0; i < moved.size(); ++i) {
        moved[i] +=
            static_cast<float>((side == 0 ? -step : step) * gradient[i]);
      }
      objective.block().SetLinear(
          id,
          MatrixView<const float>(moved.data(), linear.outputs, linear.inputs),
          pool_);
      losses[side] = MeanOf(objective.Losses(windows, pool_));
    }
    objective.block().SetLinear(id, linear.view(), pool_);
    // The loss is a mean over 1152 numbers in floats; its curvature adds less.
    EXPECT_NEAR((losses[1] - losses[0]) / (2 * step) / square, 1.0, 5e-3);
  }
}

TEST_F(SignRoundTest, BatchesInPartsAreTheSameBatch) {
  const TrainedBlock trained = tiny_.With(kZeros);
  BlockObjective whole(trained, GemmPrecision::kF32, pool_);
  BlockObjective parts(trained, GemmPrecision::kF32, pool_,
                       /*activation_bytes=*/1);
  for (BlockObjective* objective : {&whole, &parts}) {
    for (const LinearId id : kAllLinears) {
      BlockWeights<float> zeros = Converted<float>(tiny_.weights);
      for (float& w : zeros[id].weight) w *= 0.5f;
      objective->block().SetLinear(id, zeros[id].view(), pool_);
    }
  }
  const std::vector<int64_t> windows = {9, 2, 3, 0};
  EXPECT_EQ(whole.LossesAndGradients(windows, pool_),
            parts.LossesAndGradients(windows, pool_));
  // A second batch begins anew.
  parts.LossesAndGradients(windows, pool_);
  for (const LinearId id : kAllLinears) {
    const absl::Span<const float> want =
        testing::Flat<float>(MatrixView<const float>(whole.gradient(id)));
    const absl::Span<const float> got =
        testing::Flat<float>(MatrixView<const float>(parts.gradient(id)));
    EXPECT_LT(testing::RelativeError(got, want), 1e-5);
  }
}

}  // namespace
}  // namespace nibble
