#include "quantization/awq/awq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::Each;
using testing::RandomValues;

constexpr int64_t kTokens = 256;

size_t Index(LinearId id) { return static_cast<size_t>(id); }

// A block with inputs of its linears, made up: AWQ asks no more.
class FakeBlock {
 public:
  explicit FakeBlock(const DecoderConfig& config, uint64_t seed = 1)
      : config_(config), random_(seed) {
    Linear(LinearId::kQkv, config.qkv_dim(), config.hidden, config.qkv_bias);
    Linear(LinearId::kAttention, config.hidden, config.q_dim(),
           config.output_bias);
    Linear(LinearId::kUp, config.gated ? 2 * config.ffn : config.ffn,
           config.hidden, config.mlp_bias);
    Linear(LinearId::kDown, config.hidden, config.ffn, config.mlp_bias);
    Norm(weights_.attention_norm);
    if (config.norm_layout == NormLayout::kSeparate) Norm(weights_.mlp_norm);
    for (const LinearId id : kAllLinears) Inputs(id);
  }

  // What makes a model hard: s into the columns, 1 / s into the inputs.
  void ScaleChannels() {
    for (const FoldablePair& pair : FoldablePairs(config_)) {
      std::vector<float> scales = random_.Normal(pair.free_scales, 0.5f);
      for (float& s : scales) s = std::exp(s);
      Fold(pair, scales, config_, weights_);
      for (const LinearId id : pair.consumers) {
        for (int64_t j = 0; j < pair.inputs; ++j) {
          DivideInput(id, j,
                      scales[static_cast<size_t>(
                          pair.scale_of_input[static_cast<size_t>(j)])]);
        }
      }
    }
  }

  // Input `j` of a linear becomes x_j / by.
  void DivideInput(LinearId id, int64_t j, float by) {
    for (int64_t t = 0; t < kTokens; ++t) {
      x_[Index(id)][static_cast<size_t>(t * weights_[id].inputs + j)] /= by;
    }
  }
  void SetInput(LinearId id, int64_t j, float value) {
    for (int64_t t = 0; t < kTokens; ++t) {
      x_[Index(id)][static_cast<size_t>(t * weights_[id].inputs + j)] = value;
    }
  }

  // Valid until the next call.
  BlockStatistics Statistics() {
    BlockStatistics statistics;
    for (const LinearId id : kAllLinears) {
      const int64_t n = weights_[id].inputs;
      std::vector<float>& gram = gram_[Index(id)];
      std::vector<double>& mean = mean_absolute_[Index(id)];
      gram.assign(static_cast<size_t>(n * n), 0.0f);
      mean.assign(static_cast<size_t>(n), 0.0);
      const std::vector<float>& x = x_[Index(id)];
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t t = 0; t < kTokens; ++t) {
            sum += double{x[static_cast<size_t>(t * n + i)]} *
                   x[static_cast<size_t>(t * n + j)];
          }
          gram[static_cast<size_t>(i * n + j)] =
              static_cast<float>(sum / kTokens);
        }
        for (int64_t t = 0; t < kTokens; ++t) {
          mean[static_cast<size_t>(i)] +=
              std::abs(x[static_cast<size_t>(t * n + i)]) / double{kTokens};
        }
      }
      statistics[Index(id)] = {MatrixView<const float>(gram.data(), n, n),
                               mean};
    }
    return statistics;
  }

  const DecoderConfig& config() const { return config_; }
  BlockWeights<float>& weights() { return weights_; }

 private:
  void Linear(LinearId id, int64_t outputs, int64_t inputs, bool bias) {
    BlockLinear<float>& linear = weights_[id];
    linear.outputs = outputs;
    linear.inputs = inputs;
    Fill(random_.Normal(outputs * inputs, 0.1f), linear.weight);
    if (bias) Fill(random_.Normal(outputs, 0.1f), linear.bias);
  }

  void Norm(BlockNorm<float>& norm) {
    Fill(random_.Uniform(config_.hidden, 0.5f, 1.5f), norm.weight);
    if (config_.norm == NormKind::kLayer) {
      Fill(random_.Normal(config_.hidden, 0.1f), norm.bias);
    }
  }

  // Some channels larger than others, and correlated with their neighbours.
  void Inputs(LinearId id) {
    const int64_t n = weights_[id].inputs;
    std::vector<float> x = random_.Normal(kTokens * n, 1.0f);
    const std::vector<float> sizes = random_.Normal(n, 0.5f);
    for (int64_t t = 0; t < kTokens; ++t) {
      float* row = x.data() + t * n;
      for (int64_t j = n - 1; j > 0; --j) row[j] += 0.5f * row[j - 1];
      for (int64_t j = 0; j < n; ++j) {
        row[j] *= std::exp(sizes[static_cast<size_t>(j)]);
      }
    }
    x_[Index(id)] = std::move(x);
  }

  static void Fill(const std::vector<float>& values, Array<float>& out) {
    out = Array<float>(values.size());
    std::copy(values.begin(), values.end(), out.begin());
  }

  const DecoderConfig config_;
  RandomValues random_;
  BlockWeights<float> weights_;
  std::array<std::vector<float>, kLinearCount> x_;     // [tokens, inputs]
  std::array<std::vector<float>, kLinearCount> gram_;  // [inputs, inputs]
  std::array<std::vector<double>, kLinearCount> mean_absolute_;  // [inputs]
};

// Llama's graph with a tail of 16 inputs in groups of 32.
DecoderConfig Config() {
  DecoderConfig config = testing::TinyDecoderConfig();
  config.hidden = 80;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 8;
  config.ffn = 112;
  return config;
}

AwqOptions Options(CodeOffset offset = CodeOffset::kZeros) {
  AwqOptions options;
  options.grids.fill(GridSpec{4, 32, offset});
  return options;
}

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

std::vector<float> Columns(const AwqResult& result, LinearId id,
                           int64_t inputs) {
  for (const ChosenScales& chosen : result.pairs) {
    const FoldablePair& pair = chosen.pair;
    if (std::count(pair.consumers.begin(), pair.consumers.end(), id) == 0) {
      continue;
    }
    std::vector<float> columns;
    for (const int32_t scale : pair.scale_of_input) {
      columns.push_back(chosen.scales[static_cast<size_t>(scale)]);
    }
    return columns;
  }
  return std::vector<float>(static_cast<size_t>(inputs), 1.0f);
}

const ChosenScales& Of(const AwqResult& result, FoldInto producer) {
  for (const ChosenScales& chosen : result.pairs) {
    if (chosen.pair.producer == producer) return chosen;
  }
  ADD_FAILURE() << FoldIntoName(producer);
  return result.pairs[0];
}

void ExpectSane(const AwqResult& result) {
  for (const ChosenScales& chosen : result.pairs) {
    for (const float s : chosen.scales) {
      EXPECT_TRUE(std::isfinite(s) && s > 0) << s;
    }
    EXPECT_LE(chosen.loss, chosen.identity_loss);
  }
  for (const Array<float>& clip : result.clip) {
    for (const float ratio : clip) {
      EXPECT_GE(ratio, 0.5f);
      EXPECT_LE(ratio, 1.0f);
    }
  }
}

void ExpectFinite(const BlockWeights<float>& weights) {
  for (const LinearId id : kAllLinears) {
    for (const float w : weights[id].weight) ASSERT_TRUE(std::isfinite(w));
    for (const float b : weights[id].bias) ASSERT_TRUE(std::isfinite(b));
  }
  for (const float w : weights.attention_norm.weight) {
    ASSERT_TRUE(std::isfinite(w));
  }
}

std::vector<float> Copy(const Array<float>& values) {
  return std::vector<float>(values.begin(), values.end());
}

BlockLinear<float> Copy(const BlockLinear<float>& linear) {
  BlockLinear<float> copy;
  copy.outputs = linear.outputs;
  copy.inputs = linear.inputs;
  copy.weight = Array<float>(linear.weight.size());
  std::copy(linear.weight.begin(), linear.weight.end(), copy.weight.begin());
  return copy;
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

// The error of a group's part of the outputs, in doubles.
double GroupError(const BlockLinear<float>& linear, int64_t row, int64_t first,
                  int64_t size, const GroupGrid& grid, const GridSpec& spec,
                  const InputStatistics& statistics,
                  const std::vector<float>& scales) {
  std::vector<double> error;
  for (int64_t j = first; j < first + size; ++j) {
    const float w = linear.view().row(row)[j];
    error.push_back(
        (DecodeWeight(EncodeWeight(w, grid, spec), grid, spec) - double{w}) /
        scales[static_cast<size_t>(j)]);
  }
  double sum = 0;
  for (int64_t j = 0; j < size; ++j) {
    for (int64_t k = 0; k < size; ++k) {
      sum += error[static_cast<size_t>(j)] * error[static_cast<size_t>(k)] *
             statistics.gram.row(first + j)[first + k];
    }
  }
  return sum;
}

TEST(ClipTest, LosesAtMostWhatTheWholeRangeLoses) {
  const AwqOptions options = Options();
  const GridSpec spec = *options.grids[0];
  ThreadPool pool(2);
  FakeBlock fake(Config());
  const BlockStatistics statistics = fake.Statistics();
  const AwqResult result =
      TransformAwq(fake.config(), statistics, options, fake.weights(), pool);
  double whole = 0;
  double clipped = 0;
  for (const LinearId id : kAllLinears) {
    const BlockLinear<float>& linear = fake.weights()[id];
    const int64_t groups = spec.groups(linear.inputs);
    const std::vector<float> scales = Columns(result, id, linear.inputs);
    ASSERT_EQ(static_cast<int64_t>(result.clip_of(id).size()),
              linear.outputs * groups);
    for (int64_t i = 0; i < linear.outputs; ++i) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t size = std::min<int64_t>(32, linear.inputs - g * 32);
        const absl::Span<const float> weights =
            linear.view().row_span(i).subspan(static_cast<size_t>(g * 32),
                                              static_cast<size_t>(size));
        const float ratio =
            result.clip_of(id)[static_cast<size_t>(i * groups + g)];
        const double all =
            GroupError(linear, i, g * 32, size, FitGroup(weights, spec), spec,
                       statistics[Index(id)], scales);
        const double part = GroupError(linear, i, g * 32, size,
                                       FitClippedGroup(weights, ratio, spec),
                                       spec, statistics[Index(id)], scales);
        EXPECT_LE(part, all * (1 + 1e-4)) << ratio;
        whole += all;
        clipped += part;
      }
    }
  }
  EXPECT_LT(clipped, 0.97 * whole);
}

TEST(ClipTest, LeavesQueriesAndKeysAlone) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        Options(), fake.weights(), pool);
  const absl::Span<const float> clip = result.clip_of(LinearId::kQkv);
  const size_t kept = static_cast<size_t>(
      (fake.config().q_dim() + fake.config().kv_dim()) * 3);  // groups
  EXPECT_THAT(clip.subspan(0, kept), Each(1.0f));
  EXPECT_LT(*std::min_element(clip.begin() + kept, clip.end()), 1.0f);
}

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

TEST(AwqHostileTest, DeadChannels) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  for (const LinearId id : kAllLinears) {
    for (const int64_t j : {0, 7, 40}) fake.SetInput(id, j, 0.0f);
  }
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        Options(), fake.weights(), pool);
  ExpectSane(result);
  ExpectFinite(fake.weights());
  const ChosenScales& chosen = Of(result, FoldInto::kAttentionNorm);
  EXPECT_LT(chosen.loss, chosen.identity_loss);
}

TEST(AwqHostileTest, NothingButDeadChannels) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  for (const LinearId id : kAllLinears) {
    for (int64_t j = 0; j < fake.weights()[id].inputs; ++j) {
      fake.SetInput(id, j, 0.0f);
    }
  }
  const AwqResult result = TransformAwq(fake.config(), fake.Statistics(),
                                        Options(), fake.weights(), pool);
  ExpectSane(result);
  for (const ChosenScales& chosen : result.pairs) {
    EXPECT_EQ(chosen.family, ScaleFamily::kIdentity);
    EXPECT_EQ(chosen.loss, 0);
  }
}

TEST(AwqHostileTest, ConstantAndDuplicateInputs) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  for (const LinearId id : kAllLinears) {
    for (int64_t j = 0; j < fake.weights()[id].inputs; ++j) {
      fake.SetInput(id, j, 2.0f);
    }
  }
  ExpectSane(TransformAwq(fake.config(), fake.Statistics(), Options(),
                          fake.weights(), pool));
  ExpectFinite(fake.weights());
}

TEST(AwqHostileTest, HugeOutliers) {
  ThreadPool pool(2);
  for (const float outlier : {1e12f, 1e30f}) {
    FakeBlock fake(Config());
    for (const LinearId id : kAllLinears) {
      fake.SetInput(id, 3, outlier / 1e10f);
      fake.weights()[id].weight[5] = outlier;
      fake.weights()[id].weight[6] = 1e-40f;
    }
    ExpectSane(TransformAwq(fake.config(), fake.Statistics(), Options(),
                            fake.weights(), pool));
    ExpectFinite(fake.weights());
  }
}

TEST(AwqHostileTest, WeightsOfZero) {
  ThreadPool pool(2);
  FakeBlock fake(Config());
  for (const LinearId id : kAllLinears) {
    for (float& w : fake.weights()[id].weight) w = 0;
  }
  ExpectSane(TransformAwq(fake.config(), fake.Statistics(), Options(),
                          fake.weights(), pool));
  ExpectFinite(fake.weights());
}

}  // namespace
}  // namespace nibble
