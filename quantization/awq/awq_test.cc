#include "quantization/awq/awq.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/awq/fake_block.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/coded_matrix.h"

namespace nibble {
namespace {

using ::testing::Each;

QuantizedMatrix Rounded(const BlockLinear<float>& linear, LinearId id,
                        const AwqOptions& options, const AwqResult& result,
                        ThreadPool& pool) {
  RoundOptions rounding;
  rounding.spec = *options.grids[Index(id)];
  rounding.clip = result.clip_of(id);
  return RoundMatrix(linear.view(), rounding, pool);
}

// tr(dW G dW^T) of a linear after the transform and rounding, in the inputs
// before it, by plain loops in doubles.
double Loss(const BlockLinear<float>& before, const QuantizedMatrix& rounded,
            absl::Span<const float> scales, const InputStatistics& statistics) {
  double loss = 0;
  const size_t n = static_cast<size_t>(before.inputs);
  std::vector<float> row(n);
  std::vector<double> error(n);
  for (int64_t i = 0; i < before.outputs; ++i) {
    rounded.DequantizeRow(i, absl::MakeSpan(row));
    for (size_t j = 0; j < n; ++j) {
      error[j] = double{row[j]} / scales[j] - before.view().row(i)[j];
    }
    for (size_t j = 0; j < n; ++j) {
      for (size_t k = 0; k < n; ++k) {
        loss += error[j] * error[k] *
                statistics.gram.row(static_cast<int64_t>(j))[k];
      }
    }
  }
  return loss;
}

class AwqTest : public ::testing::TestWithParam<CodeOffset> {};

// The losses are those of plain loops, and never above the identity's.
TEST_P(AwqTest, ChoosesWhatLosesLeast) {
  AwqOptions options = Options(GetParam());
  options.clip = false;
  ThreadPool pool(2);
  FakeBlock fake(Config());
  fake.ScaleChannels();
  const BlockStatistics statistics = fake.Statistics();
  // Linears whose rows nobody scales.
  const std::array<std::pair<LinearId, FoldInto>, 2> cases = {{
      {LinearId::kAttention, FoldInto::kValueRows},
      {LinearId::kDown, FoldInto::kUpRows},
  }};
  std::vector<BlockLinear<float>> before;
  for (const auto& [id, producer] : cases) {
    before.push_back(Copy(fake.weights()[id]));
  }
  const AwqResult result =
      TransformAwq(fake.config(), statistics, options, fake.weights(), pool);
  ASSERT_EQ(result.pairs.size(), 4u);
  ExpectSane(result);
  for (size_t k = 0; k < cases.size(); ++k) {
    const auto [id, producer] = cases[k];
    const ChosenScales& chosen = Of(result, producer);
    EXPECT_NE(chosen.family, ScaleFamily::kIdentity);
    const std::vector<float> ones(static_cast<size_t>(before[k].inputs), 1.0f);
    const double identity =
        Loss(before[k], Rounded(before[k], id, options, result, pool), ones,
             statistics[Index(id)]);
    const double loss =
        Loss(before[k], Rounded(fake.weights()[id], id, options, result, pool),
             Columns(result, id, before[k].inputs), statistics[Index(id)]);
    // Products of f32.
    EXPECT_NEAR(chosen.identity_loss, identity, 1e-5 * identity);
    EXPECT_NEAR(chosen.loss, loss, 1e-5 * loss);
  }
}

// Scaling every channel by exp(0.5 z) costs rounding to nearest dearly; AWQ
// must lose less than rounding does on the block that was never scaled.
TEST_P(AwqTest, WinsBackWhatScaledChannelsLose) {
  AwqOptions options = Options(GetParam());
  options.clip = false;
  ThreadPool pool(2);
  for (const uint64_t seed : {1, 2, 3}) {
    FakeBlock plain(Config(), seed);
    FakeBlock scaled(Config(), seed);
    scaled.ScaleChannels();
    const AwqResult expected = TransformAwq(plain.config(), plain.Statistics(),
                                            options, plain.weights(), pool);
    const AwqResult result = TransformAwq(scaled.config(), scaled.Statistics(),
                                          options, scaled.weights(), pool);
    for (const FoldInto producer : {FoldInto::kValueRows, FoldInto::kUpRows}) {
      const ChosenScales& chosen = Of(result, producer);
      EXPECT_GT(chosen.identity_loss,
                1.4 * Of(expected, producer).identity_loss)
          << FoldIntoName(producer);
      EXPECT_LT(chosen.loss, Of(expected, producer).identity_loss);
      EXPECT_LT(chosen.loss, 1.1 * Of(expected, producer).loss);
    }
  }
}

TEST_P(AwqTest, AlphaOfZeroIsRoundingToNearest) {
  AwqOptions options = Options(GetParam());
  options.scale_steps = 1;
  options.both = options.balanced = options.clip = false;
  ThreadPool pool(2);
  FakeBlock fake(Config());
  FakeBlock untouched(Config());
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        options, fake.weights(), pool);
  for (const ChosenScales& chosen : result.pairs) {
    EXPECT_THAT(chosen.scales, Each(1.0f));
    EXPECT_EQ(chosen.loss, chosen.identity_loss);
  }
  for (const LinearId id : kAllLinears) {
    EXPECT_EQ(Copy(fake.weights()[id].weight),
              Copy(untouched.weights()[id].weight));
    const QuantizedMatrix rounded =
        Rounded(fake.weights()[id], id, options, result, pool);
    RoundOptions plain;
    plain.spec = *options.grids[Index(id)];
    const QuantizedMatrix nearest =
        RoundMatrix(untouched.weights()[id].view(), plain, pool);
    EXPECT_TRUE(std::equal(rounded.codes.begin(), rounded.codes.end(),
                           nearest.codes.begin(), nearest.codes.end()));
    EXPECT_EQ(Copy(rounded.scales), Copy(nearest.scales));
    EXPECT_EQ(Copy(rounded.offsets), Copy(nearest.offsets));
  }
}

TEST_P(AwqTest, DoesNotDependOnTheNumberOfThreads) {
  const AwqOptions options = Options(GetParam());
  std::vector<std::vector<float>> first;
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    FakeBlock fake(Config());
    fake.ScaleChannels();
    const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                          options, fake.weights(), pool);
    std::vector<std::vector<float>> bits;
    for (const ChosenScales& chosen : result.pairs) {
      bits.push_back(chosen.scales);
    }
    for (const LinearId id : kAllLinears) {
      bits.push_back(Copy(fake.weights()[id].weight));
      bits.push_back(Copy(result.clip[Index(id)]));
    }
    if (first.empty()) first = bits;
    EXPECT_EQ(bits, first) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, AwqTest,
                         ::testing::Values(CodeOffset::kZeros,
                                           CodeOffset::kSymmetric,
                                           CodeOffset::kMinimums),
                         [](const auto& info) {
                           switch (info.param) {
                             case CodeOffset::kZeros:
                               return "Zeros";
                             case CodeOffset::kSymmetric:
                               return "Symmetric";
                             case CodeOffset::kMinimums:
                               return "Minimums";
                           }
                           return "";
                         });

TEST(AwqFloatLinearsTest, AreNeitherScaledForNorClipped) {
  AwqOptions options = Options();
  options.grids[Index(LinearId::kDown)].reset();
  ThreadPool pool(2);
  FakeBlock fake(Config());
  const std::vector<float> down = Copy(fake.weights()[LinearId::kDown].weight);
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        options, fake.weights(), pool);
  EXPECT_EQ(result.pairs.size(), 3u);
  EXPECT_TRUE(result.clip_of(LinearId::kDown).empty());
  EXPECT_EQ(Copy(fake.weights()[LinearId::kDown].weight), down);
}

TEST(AwqSharedNormTest, CountsBothReaders) {
  DecoderConfig config = Config();
  config.norm = NormKind::kLayer;
  config.norm_layout = NormLayout::kShared;
  config.residual = Residual::kParallel;
  config.gated = false;
  config.kv_heads = 1;
  ThreadPool pool(2);
  std::vector<double> identity;
  const auto run = [&](bool qkv, bool up) {
    AwqOptions options = Options();
    if (!qkv) options.grids[Index(LinearId::kQkv)].reset();
    if (!up) options.grids[Index(LinearId::kUp)].reset();
    FakeBlock fake(config);
    const AwqResult result =
        TransformAwq(config, fake.Statistics(), options, fake.weights(), pool);
    ExpectSane(result);
    return Of(result, FoldInto::kAttentionNorm).identity_loss;
  };
  const double both = run(true, true);
  EXPECT_NEAR(run(true, false) + run(false, true), both, 1e-9 * both);
}

// With variances the loss is of the grid's steps, each error for itself.
TEST(AwqVariancesTest, WeighTheStepsOfTheGrid) {
  AwqOptions options = Options();
  options.clip = false;
  ThreadPool pool(2);
  FakeBlock fake(Config());
  fake.ScaleChannels();
  BlockStatistics statistics = fake.Statistics();
  const BlockLinear<float> before = Copy(fake.weights()[LinearId::kDown]);
  std::vector<double> variances;
  testing::RandomValues random(5);
  for (const float v : random.Uniform(before.inputs, 0.1f, 2.0f)) {
    variances.push_back(v);
  }
  statistics[Index(LinearId::kDown)].variances = variances;
  const AwqResult result =
      TransformAwq(fake.config(), statistics, options, fake.weights(), pool);
  const ChosenScales& chosen = Of(result, FoldInto::kUpRows);
  const auto loss = [&](const BlockLinear<float>& linear,
                        const std::vector<float>& scales) {
    const QuantizedMatrix rounded =
        Rounded(linear, LinearId::kDown, options, result, pool);
    const int64_t size = rounded.spec.group_inputs(rounded.inputs);
    double sum = 0;
    for (int64_t i = 0; i < rounded.outputs; ++i) {
      for (int64_t j = 0; j < rounded.inputs; ++j) {
        const size_t input = static_cast<size_t>(j);
        const double step = rounded.grid(i, j / size).scale / scales[input];
        sum += step * step / 12 * variances[input];
      }
    }
    return sum;
  };
  const double identity = loss(
      before, std::vector<float>(static_cast<size_t>(before.inputs), 1.0f));
  EXPECT_NEAR(chosen.identity_loss, identity, 1e-9 * identity);
  const double found = loss(fake.weights()[LinearId::kDown], chosen.scales);
  EXPECT_NEAR(chosen.loss, found, 1e-5 * found);
  EXPECT_LT(found, 0.9 * identity);
}

// Groups of other sizes and bits share a pair's scales.
TEST(AwqSharedNormTest, TakesReadersOnDifferentGrids) {
  DecoderConfig config = Config();
  config.norm_layout = NormLayout::kShared;
  config.residual = Residual::kParallel;
  AwqOptions options = Options();
  options.grids[Index(LinearId::kUp)] = GridSpec{8, 64, CodeOffset::kSymmetric};
  ThreadPool pool(2);
  FakeBlock fake(config);
  fake.ScaleChannels();
  const AwqResult result =
      TransformAwq(config, fake.Statistics(), options, fake.weights(), pool);
  ExpectSane(result);
  const ChosenScales& chosen = Of(result, FoldInto::kAttentionNorm);
  EXPECT_LT(chosen.loss, 0.8 * chosen.identity_loss);
}

}  // namespace
}  // namespace nibble
