// TEQ on small blocks: what it starts from, what it wins back, what it refuses.
#include "quantization/teq/teq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
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
using ::nibble::testing::GridName;
using ::nibble::testing::IsOk;
using ::nibble::testing::RandomValues;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyDecoderConfig;
using ::nibble::testing::TinyTraining;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr GridSpec kZeros = {4, 32, CodeOffset::kZeros};

TeqOptions Quick(int64_t iterations) {
  TeqOptions options;
  options.iterations = iterations;
  options.batch = 4;
  options.precision = GemmPrecision::kF32;
  return options;
}

BlockWeights<float> FoldedAndRounded(const TinyTraining& tiny,
                                     const TeqResult& result,
                                     const GridSpec& spec, ThreadPool& pool) {
  BlockWeights<float> weights = Converted<float>(tiny.weights);
  const std::vector<FoldablePair> pairs = FoldablePairs(tiny.config);
  for (size_t i = 0; i < pairs.size(); ++i) {
    Fold(pairs[i], result.scales[i], tiny.config, weights);
  }
  RoundOptions options;
  options.spec = spec;
  for (BlockLinear<float>& linear : weights.linears) {
    Dequantize(RoundMatrix(linear.view(), options, pool), linear.view(), pool);
  }
  return weights;
}

// Multiplies channels by exp(0.5 normal) without changing the function.
void ScaleChannels(TinyTraining& tiny, uint64_t seed) {
  RandomValues random(seed);
  for (const FoldablePair& pair : FoldablePairs(tiny.config)) {
    std::vector<float> scales = random.Normal(pair.free_scales, 0.5f);
    for (float& scale : scales) scale = std::exp(scale);
    Fold(pair, scales, tiny.config, tiny.weights);
  }
}

DecoderConfig Parallel() {
  DecoderConfig config = TinyDecoderConfig();
  config.norm = NormKind::kLayer;
  config.residual = Residual::kParallel;
  config.norm_layout = NormLayout::kShared;
  config.gated = false;
  config.mlp_bias = true;
  return config;
}

class TeqTest : public ::testing::Test {
 protected:
  TeqTest() : tiny_(TinyDecoderConfig(), pool_) {}

  ThreadPool pool_{2};
  TinyTraining tiny_;
};

TEST_F(TeqTest, WithoutSearchAndIterationsIsRoundToNearest) {
  TeqOptions options = Quick(0);
  options.search_start = false;
  const auto result = TrainTeq(tiny_.With(kZeros), options, pool_);
  ASSERT_THAT(result, IsOk());
  ASSERT_EQ(result->scales.size(), FoldablePairs(tiny_.config).size());
  for (const std::vector<float>& scales : result->scales) {
    EXPECT_THAT(scales, Each(1.0f));
  }
  EXPECT_EQ(result->best_loss, result->identity_loss);
  const double loss =
      tiny_.LossOf(FoldedAndRounded(tiny_, *result, kZeros, pool_), pool_);
  EXPECT_NEAR(result->identity_loss, loss, 1e-5 * loss);
}

TEST_F(TeqTest, FoldedBlockHasTheLossAndNeverMoreThanRoundToNearest) {
  for (const DecoderConfig& config : {TinyDecoderConfig(), Parallel()}) {
    for (const GridSpec& spec : testing::kTrainedGrids) {
      SCOPED_TRACE(GridName(spec));
      TinyTraining tiny(config, pool_);
      const auto result = TrainTeq(tiny.With(spec), Quick(10), pool_);
      ASSERT_THAT(result, IsOk());
      EXPECT_LE(result->start_loss, result->identity_loss);
      EXPECT_LE(result->best_loss, result->start_loss);
      // Producers' rows are folded too, which changes how their groups' scales
      // round to f16: by 2^-12 of the weights, beside steps of 1/15 of them.
      const double loss =
          tiny.LossOf(FoldedAndRounded(tiny, *result, spec, pool_), pool_);
      EXPECT_NEAR(result->best_loss, loss, 0.05 * loss);
    }
  }
}

TEST_F(TeqTest, WinsBackWhatChannelScalingCosts) {
  for (const DecoderConfig& config : {TinyDecoderConfig(), Parallel()}) {
    TinyTraining tiny(config, pool_);
    const auto plain = TrainTeq(tiny.With(kZeros), Quick(0), pool_);
    ASSERT_THAT(plain, IsOk());
    for (const uint64_t seed : {1, 2, 3}) {
      TinyTraining scaled(config, pool_);
      ScaleChannels(scaled, seed);
      const auto result = TrainTeq(scaled.With(kZeros), Quick(0), pool_);
      ASSERT_THAT(result, IsOk());
      EXPECT_LT(result->best_loss, 0.7 * result->identity_loss);
      EXPECT_LT(result->best_loss, 1.1 * plain->identity_loss);
    }
  }
}

TEST_F(TeqTest, TrainingGoesBelowItsStart) {
  // From ones, where channels are unequal: there is something to find.
  ScaleChannels(tiny_, 4);
  TeqOptions options = Quick(100);
  options.search_start = false;
  options.learning_rate = 0.02;
  const auto result = TrainTeq(tiny_.With(kZeros), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->start_loss, result->identity_loss);
  EXPECT_LT(result->best_loss, 0.8 * result->start_loss);
  EXPECT_GT(result->best_iteration, 0);
}

// Weights that lie on the grid lose nothing to the nearest codes, and as much
// as any to GPTQ, which moves them.
TEST_F(TeqTest, BeforeGptqItIsTheStepsThatCount) {
  ScaleChannels(tiny_, 6);
  RoundOptions rounding;
  rounding.spec = kZeros;
  for (BlockLinear<float>& linear : tiny_.weights.linears) {
    Dequantize(RoundMatrix(linear.view(), rounding, pool_), linear.view(),
               pool_);
  }
  tiny_.StoreTargets(pool_);
  TeqOptions options = Quick(50);
  options.learning_rate = 0.02;
  const auto nearest = TrainTeq(tiny_.With(kZeros), options, pool_);
  ASSERT_THAT(nearest, IsOk());
  for (const std::vector<float>& scales : nearest->scales) {
    EXPECT_THAT(scales, Each(1.0f));
  }

  std::vector<double> identity_losses;
  for (const float residual : {0.25f, 0.5f, 1.0f}) {
    std::array<std::vector<float>, kLinearCount> residuals;
    for (const LinearId id : kAllLinears) {
      const size_t i = static_cast<size_t>(id);
      residuals[i].assign(static_cast<size_t>(tiny_.weights[id].inputs),
                          residual);
      options.residuals[i] = residuals[i];
    }
    const auto moved = TrainTeq(tiny_.With(kZeros), options, pool_);
    ASSERT_THAT(moved, IsOk());
    EXPECT_GT(moved->identity_loss, 10 * nearest->identity_loss);
    EXPECT_LT(moved->start_loss, 0.8 * moved->identity_loss);
    EXPECT_LT(moved->best_loss, 0.95 * moved->start_loss);
    identity_losses.push_back(moved->identity_loss);
  }
  // The loss is the square of the error, as long as that is small.
  EXPECT_NEAR(identity_losses[1] / identity_losses[0], 4, 0.4);
  EXPECT_NEAR(identity_losses[2] / identity_losses[0], 16, 3);
}

// Of scales that another search found it takes those that help, pair by pair.
TEST_F(TeqTest, StartsFromFoundScalesWhereTheyHelp) {
  TinyTraining scaled(TinyDecoderConfig(), pool_);
  ScaleChannels(scaled, 7);
  const auto searched = TrainTeq(scaled.With(kZeros), Quick(0), pool_);
  ASSERT_THAT(searched, IsOk());
  TeqOptions options = Quick(0);
  options.start = searched->scales;
  // Of the first pair, what makes it worse.
  for (float& scale : options.start[0]) scale = 1.0f / scale;
  const auto result = TrainTeq(scaled.With(kZeros), options, pool_);
  ASSERT_THAT(result, IsOk());
  EXPECT_THAT(result->scales[0], Each(1.0f));
  for (size_t i = 1; i < options.start.size(); ++i) {
    EXPECT_EQ(result->scales[i], options.start[i]);
  }
  EXPECT_LT(result->start_loss, result->identity_loss);
}

TEST_F(TeqTest, SameBitsOnAnyNumberOfThreads) {
  ThreadPool one(1), three(3);
  const auto first = TrainTeq(tiny_.With(kZeros), Quick(6), one);
  const auto second = TrainTeq(tiny_.With(kZeros), Quick(6), three);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->scales, second->scales);
  EXPECT_EQ(first->best_loss, second->best_loss);
}

TEST_F(TeqTest, PairsWithoutGridKeepOnes) {
  ScaleChannels(tiny_, 5);
  TrainedBlock trained = tiny_.With(kZeros);
  trained.grids[static_cast<size_t>(LinearId::kQkv)].reset();
  const auto result = TrainTeq(trained, Quick(4), pool_);
  ASSERT_THAT(result, IsOk());
  const std::vector<FoldablePair> pairs = FoldablePairs(tiny_.config);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].consumers[0] == LinearId::kQkv) {
      EXPECT_THAT(result->scales[i], Each(1.0f));
    }
  }
  EXPECT_LT(result->best_loss, result->identity_loss);
  // And with no grid at all there is nothing to do.
  const auto none = TrainTeq(tiny_.With(std::nullopt), Quick(4), pool_);
  ASSERT_THAT(none, IsOk());
  for (const std::vector<float>& scales : none->scales) {
    EXPECT_THAT(scales, Each(1.0f));
  }
}

TEST_F(TeqTest, DeadConstantAndHugeChannelsStayFinite) {
  const MatrixView<float> up = tiny_.weights[LinearId::kUp].view();
  for (int64_t i = 0; i < up.rows; ++i) {
    up.row(i)[3] = 0.0f;
    up.row(i)[4] = 0.25f;
  }
  std::fill_n(up.row(5), up.cols, 0.0f);
  up.row(7)[9] = 1e4f;
  // A dead input: its norm's weight is 0.
  tiny_.weights.mlp_norm.weight[11] = 0.0f;
  tiny_.StoreTargets(pool_);
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    const auto result = TrainTeq(tiny_.With(spec), Quick(8), pool_);
    ASSERT_THAT(result, IsOk());
    EXPECT_TRUE(std::isfinite(result->best_loss));
    for (const std::vector<float>& scales : result->scales) {
      EXPECT_THAT(scales, Each(::testing::Truly([](float scale) {
                    return scale >= 1e-6f && scale <= 1e6f;
                  })));
    }
  }
}

TEST_F(TeqTest, JudgesEightBitsByFloatProducts) {
  // One matrix of 8 bits is enough; and 4 bits alone stay with bf16.
  TrainedBlock mixed = tiny_.With(kZeros);
  mixed.grids[1] = GridSpec{8, 32, CodeOffset::kSymmetric};
  for (const auto& [trained, precision] :
       {std::pair(mixed, GemmPrecision::kF32),
        std::pair(tiny_.With(kZeros), GemmPrecision::kBF16)}) {
    TeqOptions options = Quick(2);
    std::vector<double> losses;
    for (const std::optional<GemmPrecision> asked :
         {std::optional<GemmPrecision>(), std::optional(GemmPrecision::kF32),
          std::optional(GemmPrecision::kBF16)}) {
      options.precision = asked;
      const auto result = TrainTeq(trained, options, pool_);
      ASSERT_THAT(result, IsOk());
      losses.push_back(result->identity_loss);
    }
    EXPECT_NE(losses[1], losses[2]);
    EXPECT_EQ(losses[0], losses[precision == GemmPrecision::kF32 ? 1 : 2]);
  }
}

TEST_F(TeqTest, RefusesALossThatIsNoNumber) {
  for (float& w : tiny_.weights[LinearId::kUp].weight) w *= 1e15f;
  for (float& w : tiny_.weights[LinearId::kDown].weight) w *= 1e15f;
  EXPECT_THAT(TrainTeq(tiny_.With(kZeros), Quick(4), pool_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("layers.1: the distance")));
}

TEST_F(TeqTest, RefusesOptionsOutOfRange) {
  const auto status = [&](auto change) {
    TeqOptions options = Quick(4);
    change(options);
    return TrainTeq(tiny_.With(kZeros), options, pool_).status();
  };
  const auto invalid = [](const char* text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  EXPECT_THAT(status([](auto& o) { o.iterations = -1; }),
              invalid("-1 iterations"));
  EXPECT_THAT(status([](auto& o) { o.batch = 0; }), invalid("0 windows"));
  EXPECT_THAT(status([](auto& o) { o.learning_rate = std::nan(""); }),
              invalid("learning rate"));
  const std::vector<float> residuals(3, 1.0f);
  EXPECT_THAT(status([&](auto& o) { o.residuals[0] = residuals; }),
              invalid("do not fit"));
  EXPECT_THAT(status([](auto& o) {
                o.start = {{1.0f, 2.0f}};
              }),
              invalid("do not fit"));
  const std::vector<FoldablePair> pairs = FoldablePairs(tiny_.config);
  EXPECT_THAT(status([&](auto& o) {
                for (const FoldablePair& pair : pairs) {
                  o.start.emplace_back(pair.free_scales, 1.0f);
                }
                o.start[1][0] = 0.0f;
              }),
              invalid("do not fit"));
}

TEST_F(TeqTest, StopsWhenCancelled) {
  TeqOptions options = Quick(1000000);
  options.cancelled = [] { return true; };
  EXPECT_THAT(TrainTeq(tiny_.With(kZeros), options, pool_),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("TEQ")));
}

}  // namespace
}  // namespace nibble
