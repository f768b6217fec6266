// TEQ on matrices and small blocks: its slopes, what it starts from, what it
// wins back, what it refuses.
#include "quantization/teq/teq.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
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
#include "quantization/teq/scaled_matrix.h"
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

// ---- One matrix

struct Scaled {
  explicit Scaled(uint64_t seed) {
    RandomValues random(seed);
    weights = random.Normal(kRows * kInputs, 0.1f);
    gradient = random.Normal(kRows * kInputs, 1.0f);
    for (const float x : random.Normal(kInputs, 0.5f)) {
      scales.push_back(std::exp(x));
    }
  }

  static constexpr int64_t kRows = 150, kInputs = 75;  // a last group of 11
  MatrixView<const float> w() const {
    return MatrixView<const float>(weights.data(), kRows, kInputs);
  }
  MatrixView<const float> g() const {
    return MatrixView<const float>(gradient.data(), kRows, kInputs);
  }

  std::vector<float> weights;
  std::vector<float> gradient;
  std::vector<float> scales;
};

std::vector<float> Nearest(const std::vector<float>& weights,
                           const GridSpec& spec, ThreadPool& pool) {
  RoundOptions options;
  options.spec = spec;
  std::vector<float> values(weights.size());
  Dequantize(RoundMatrix(MatrixView<const float>(weights.data(), Scaled::kRows,
                                                 Scaled::kInputs),
                         options, pool),
             MatrixView<float>(values.data(), Scaled::kRows, Scaled::kInputs),
             pool);
  return values;
}

TEST(ScaledMatrixTest, OnesAreRoundToNearest) {
  ThreadPool pool(2);
  const Scaled m(1);
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    ScaledMatrix matrix(m.w(), spec);
    matrix.Round(std::vector<float>(Scaled::kInputs, 1.0f), pool);
    const absl::Span<const float> got = testing::Flat(matrix.values());
    EXPECT_EQ(std::vector<float>(got.begin(), got.end()),
              Nearest(m.weights, spec, pool));
  }
}

TEST(ScaledMatrixTest, ValuesAreTheScaledMatrixRounded) {
  ThreadPool pool(2);
  const Scaled m(2);
  std::vector<float> product = m.weights;
  for (size_t i = 0; i < product.size(); ++i) {
    product[i] *= m.scales[i % Scaled::kInputs];
  }
  ScaledMatrix matrix(m.w(), kZeros);
  matrix.Round(m.scales, pool);
  const std::vector<float> rounded = Nearest(product, kZeros, pool);
  for (size_t i = 0; i < rounded.size(); ++i) {
    ASSERT_EQ(testing::Flat(matrix.values())[i],
              rounded[i] / m.scales[i % Scaled::kInputs]);
  }
}

// sum G value as a function of log scale j, with the residuals of rounding, in
// steps, what they are at the start. Steps follow the range of their group.
double FrozenLoss(const Scaled& m, const GridSpec& spec,
                  const ScaledMatrix& matrix, int64_t moved, double change) {
  double sum = 0;
  for (int64_t row = 0; row < Scaled::kRows; ++row) {
    const float* w = m.w().row(row);
    for (int64_t first = 0; first < Scaled::kInputs; first += 32) {
      const int64_t last = std::min<int64_t>(first + 32, Scaled::kInputs);
      const auto range = [&](bool at_start) {
        double min = 0, max = 0;
        for (int64_t j = first; j < last; ++j) {
          double x = static_cast<double>(w[j]) * m.scales[j];
          if (j == moved && !at_start) x *= std::exp(change);
          min = std::min(min, x);
          max = std::max(max, x);
        }
        return spec.offset == CodeOffset::kZeros ? max - min
               : max >= -min                     ? max
                                                 : -min;
      };
      const double step = range(false) / range(true);
      for (int64_t j = first; j < last; ++j) {
        double scale = m.scales[j];
        const double residual =
            (static_cast<double>(matrix.values().row(row)[j]) - w[j]) * scale;
        if (j == moved) scale *= std::exp(change);
        sum += m.g().row(row)[j] * (w[j] + residual * step / scale);
      }
    }
  }
  return sum;
}

TEST(ScaledMatrixTest, SlopesAreFiniteDifferencesWithFrozenResiduals) {
  ThreadPool pool(2);
  const Scaled m(3);
  for (const GridSpec& spec : {kZeros, GridSpec{4, 32, CodeOffset::kSymmetric},
                               GridSpec{2, 32, CodeOffset::kZeros}}) {
    SCOPED_TRACE(GridName(spec));
    ScaledMatrix matrix(m.w(), spec);
    matrix.Round(m.scales, pool);
    std::vector<double> slopes(Scaled::kInputs);
    matrix.AddSlopes(m.g(), absl::MakeSpan(slopes), pool);
    for (int64_t j = 0; j < Scaled::kInputs; ++j) {
      constexpr double kStep = 1e-6;
      const double want = (FrozenLoss(m, spec, matrix, j, kStep) -
                           FrozenLoss(m, spec, matrix, j, -kStep)) /
                          (2 * kStep);
      // Sums of at most 64 floats and their groups' errors, then doubles.
      EXPECT_NEAR(slopes[static_cast<size_t>(j)], want, 1e-4) << "input " << j;
    }
  }
}

// ---- A block

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
}

TEST_F(TeqTest, StopsWhenCancelled) {
  TeqOptions options = Quick(1000000);
  options.cancelled = [] { return true; };
  EXPECT_THAT(TrainTeq(tiny_.With(kZeros), options, pool_),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("TEQ")));
}

}  // namespace
}  // namespace nibble
