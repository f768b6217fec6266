// The backward pass: against finite differences in double, then float against
// double.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/activation.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block.h"
#include "quantization/block/block_steps.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "tensor/buffer.h"
#include "tensor/view.h"
#include "testing/decoder_graphs.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::Converted;
using ::nibble::testing::DecoderGraph;
using ::nibble::testing::DecoderGraphs;
using ::nibble::testing::Flat;
using ::nibble::testing::RandomBlock;
using ::nibble::testing::RandomRows;
using ::nibble::testing::RandomValues;
using ::nibble::testing::RelativeError;
using ::nibble::testing::TinyDecoderConfig;

constexpr int64_t kLength = 10;  // longer than the window of a graph
constexpr int64_t kTokens = 2 * kLength;

double Sum(absl::Span<const double> a, absl::Span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Compares the slope of `loss` with the gradient along random directions and
// along a few axes. With steps of 1e-5, a central difference is off by 1e-10
// times the third derivative, and rounding adds 1e-16 / 1e-5 of the loss.
void ExpectGradient(const std::string& name, absl::Span<double> parameters,
                    absl::Span<const double> gradient,
                    const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  ASSERT_EQ(parameters.size(), gradient.size()) << name;
  const std::vector<double> start(parameters.begin(), parameters.end());
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  ASSERT_GT(largest, 0) << name;
  RandomValues random(17);
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<double> direction(start.size(), 0.0);
    if (trial < 3) {
      for (double& d : direction) d = 2 * random.Unit() - 1;
    } else {
      direction[static_cast<size_t>(
          random.Below(static_cast<int64_t>(start.size())))] = 1;
    }
    const auto at = [&](double step) {
      for (size_t i = 0; i < start.size(); ++i) {
        parameters[i] = start[i] + step * direction[i];
      }
      return loss();
    };
    const double slope = (at(kStep) - at(-kStep)) / (2 * kStep);
    std::copy(start.begin(), start.end(), parameters.begin());
    const double size = std::sqrt(Sum(direction, direction));
    EXPECT_NEAR(Sum(direction, gradient), slope, 1e-6 * largest * size)
        << name << ", direction " << trial;
  }
}

template <class T>
void WantEverything(BlockGradients<T>& gradients) {
  gradients.want_biases = gradients.want_norms = gradients.want_x = true;
}

// Calls visit(name, parameters, their gradient) for all that a block has.
template <class T, class Visit>
void ForEachGradient(BlockWeights<T>& weights, BlockGradients<T>& gradients,
                     Visit visit) {
  const char* const names[] = {"qkv", "attention", "up", "down"};
  for (const LinearId id : kAllLinears) {
    const std::string name = names[static_cast<size_t>(id)];
    visit(name, weights[id].weight.span(), gradients[id].weight.span());
    if (weights[id].bias.empty()) continue;
    visit(name + " bias", weights[id].bias.span(), gradients[id].bias.span());
  }
  const auto norm = [&](const std::string& name, BlockNorm<T>& of,
                        BlockNorm<T>& gradient) {
    if (of.weight.empty()) return;
    visit(name, of.weight.span(), gradient.weight.span());
    if (of.bias.empty()) return;
    visit(name + " bias", of.bias.span(), gradient.bias.span());
  };
  norm("attention norm", weights.attention_norm, gradients.attention_norm);
  norm("mlp norm", weights.mlp_norm, gradients.mlp_norm);
}

class BlockGradientTest : public ::testing::TestWithParam<DecoderGraph> {};

TEST_P(BlockGradientTest, DoubleIsTheSlopeOfTheLoss) {
  ThreadPool pool(1);
  const DecoderConfig& config = GetParam().config;
  BlockWeights<double> weights =
      Converted<double>(RandomBlock(config, 1, pool));
  Array<double> x = RandomRows<double>(kTokens, config.hidden, 5);
  const Array<double> dy = RandomRows<double>(kTokens, config.hidden, 6);
  const MatrixView<const double> x_view(x.data(), kTokens, config.hidden);
  const MatrixView<const double> dy_view(dy.data(), kTokens, config.hidden);
  Block<double> block(config, 1, kLength, GemmPrecision::kF32);
  BlockActivations<double> acts;
  const auto loss = [&] {
    block.SetWeights(weights, /*gradients=*/true, pool);
    block.Forward(x_view, acts, pool);
    return Sum(Flat(acts.output()), dy.span());
  };
  loss();
  BlockGradients<double> gradients;
  WantEverything(gradients);
  block.Backward(x_view, acts, dy_view, gradients, pool);
  ForEachGradient(weights, gradients,
                  [&](const std::string& name, absl::Span<double> values,
                      absl::Span<const double> gradient) {
                    ExpectGradient(name, values, gradient, loss);
                  });
  ExpectGradient("x", x.span(), Flat<double>(gradients.x.view()), loss);
}

// Of sums of some hundred products and a chain of at most ten operations: a
// relative error of some tens of 2^-24, taken over a whole tensor. Key biases
// have no effect on the softmax, so that their gradient is a rounding error:
// the bound is in terms of the largest gradient of its kind.
void ExpectFloatIsDouble(const DecoderConfig& config, int64_t length,
                         GemmPrecision precision, double bound) {
  ThreadPool pool(2);
  BlockWeights<float> weights = RandomBlock(config, 1, pool);
  BlockWeights<double> exact = Converted<double>(weights);
  const int64_t tokens = 2 * length;
  const Array<float> x = RandomRows<float>(tokens, config.hidden, 5);
  const Array<float> dy = RandomRows<float>(tokens, config.hidden, 6);
  const Array<double> exact_x = Converted<double>(x);
  const Array<double> exact_dy = Converted<double>(dy);

  const auto run = [&](auto& block, auto& own, const auto& in, const auto& d,
                       auto& acts, auto& gradients) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(in.data())>>;
    block.SetWeights(own, /*gradients=*/true, pool);
    const MatrixView<const T> in_view(in.data(), tokens, config.hidden);
    block.Forward(in_view, acts, pool);
    WantEverything(gradients);
    block.Backward(in_view, acts,
                   MatrixView<const T>(d.data(), tokens, config.hidden),
                   gradients, pool);
  };
  Block<float> fast(config, 1, length, precision);
  BlockActivations<float> fast_acts;
  BlockGradients<float> got;
  run(fast, weights, x, dy, fast_acts, got);
  Block<double> plain(config, 1, length, precision);
  BlockActivations<double> plain_acts;
  BlockGradients<double> want;
  run(plain, exact, exact_x, exact_dy, plain_acts, want);

  EXPECT_LT(RelativeError(Flat(fast_acts.output()), Flat(plain_acts.output())),
            bound);
  std::vector<absl::Span<const double>> wanted;
  ForEachGradient(
      exact, want,
      [&](const std::string&, absl::Span<double>,
          absl::Span<const double> gradient) { wanted.push_back(gradient); });
  size_t i = 0;
  ForEachGradient(weights, got,
                  [&](const std::string& name, absl::Span<float>,
                      absl::Span<const float> gradient) {
                    const double error = RelativeError(gradient, wanted[i++]);
                    EXPECT_LT(error, bound) << name;
                  });
  EXPECT_LT(
      RelativeError(Flat<float>(got.x.view()), Flat<double>(want.x.view())),
      bound);
}

constexpr double kFloatBound = 64 * 0x1p-24;

TEST_P(BlockGradientTest, FloatIsDouble) {
  ExpectFloatIsDouble(GetParam().config, kLength, GemmPrecision::kF32,
                      kFloatBound);
}

// Backward, a factor has passed up to five roundings to bf16 of 2^-9 each, and
// each product adds two.
TEST_P(BlockGradientTest, BF16IsDoubleWithinItsRounding) {
  ExpectFloatIsDouble(GetParam().config, kLength, GemmPrecision::kBF16,
                      10 * 0x1p-9);
}

// Any number of threads; and in two parts, which adds the same sums in another
// order.
TEST_P(BlockGradientTest, BitsDoNotDependOnThreads) {
  const DecoderConfig& config = GetParam().config;
  ThreadPool first(1);
  BlockWeights<float> weights = RandomBlock(config, 1, first);
  const Array<float> x = RandomRows<float>(kTokens, config.hidden, 5);
  const Array<float> dy = RandomRows<float>(kTokens, config.hidden, 6);
  const MatrixView<const float> x_view(x.data(), kTokens, config.hidden);
  const MatrixView<const float> dy_view(dy.data(), kTokens, config.hidden);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    Block<float> block(config, 1, kLength, GemmPrecision::kBF16);
    block.SetWeights(weights, /*gradients=*/true, pool);
    BlockActivations<float> acts;
    block.Forward(x_view, acts, pool);
    BlockGradients<float> gradients;
    WantEverything(gradients);
    block.Backward(x_view, acts, dy_view, gradients, pool);
    const absl::Span<const float> output = Flat(acts.output());
    std::vector<float> all(output.begin(), output.end());
    ForEachGradient(weights, gradients,
                    [&](const std::string&, absl::Span<float>,
                        absl::Span<const float> gradient) {
                      all.insert(all.end(), gradient.begin(), gradient.end());
                    });
    const absl::Span<const float> d_x = Flat<float>(gradients.x.view());
    all.insert(all.end(), d_x.begin(), d_x.end());
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_P(BlockGradientTest, PartsAddUp) {
  ThreadPool pool(2);
  const DecoderConfig& config = GetParam().config;
  BlockWeights<float> weights = RandomBlock(config, 1, pool);
  const Array<float> x = RandomRows<float>(kTokens, config.hidden, 5);
  const Array<float> dy = RandomRows<float>(kTokens, config.hidden, 6);
  const MatrixView<const float> x_view(x.data(), kTokens, config.hidden);
  const MatrixView<const float> dy_view(dy.data(), kTokens, config.hidden);
  Block<float> block(config, 1, kLength, GemmPrecision::kF32);
  block.SetWeights(weights, /*gradients=*/true, pool);
  BlockGradients<float> whole, parts;
  whole.want_biases = whole.want_norms = true;
  parts.want_biases = parts.want_norms = parts.accumulate = true;
  BlockActivations<float> acts;
  block.Forward(x_view, acts, pool);
  block.Backward(x_view, acts, dy_view, whole, pool);
  for (const int64_t first : {int64_t{0}, kLength}) {
    const MatrixView<const float> part = x_view.Rows(first, kLength);
    block.Forward(part, acts, pool);
    block.Backward(part, acts, dy_view.Rows(first, kLength), parts, pool);
  }
  std::vector<absl::Span<const float>> wanted;
  const auto keep = [&](const std::string&, absl::Span<float>,
                        absl::Span<const float> gradient) {
    wanted.push_back(gradient);
  };
  ForEachGradient(weights, whole, keep);
  size_t i = 0;
  ForEachGradient(weights, parts,
                  [&](const std::string& name, absl::Span<float>,
                      absl::Span<const float> gradient) {
                    EXPECT_LT(RelativeError(gradient, wanted[i++]), kFloatBound)
                        << name;
                  });
}

INSTANTIATE_TEST_SUITE_P(Graphs, BlockGradientTest,
                         ::testing::ValuesIn(DecoderGraphs()),
                         ::nibble::testing::GraphName);

// Several blocks of queries, the last one short, with and without what hides
// keys from them.
TEST(BlockGradientLengthTest, FloatIsDoubleOverSeveralBlocksOfQueries) {
  DecoderConfig config = TinyDecoderConfig();
  ExpectFloatIsDouble(config, 150, GemmPrecision::kF32, kFloatBound);
  config.windows = {0, 21};
  ExpectFloatIsDouble(config, 150, GemmPrecision::kF32, kFloatBound);
  config.windows = {0, 140};
  config.alibi = true;
  config.rope.style = RopeStyle::kNone;
  ExpectFloatIsDouble(config, 150, GemmPrecision::kF32, kFloatBound);
}

TEST(BlockGradientLengthTest, FloatIsDoubleOnOneToken) {
  ExpectFloatIsDouble(TinyDecoderConfig(), 1, GemmPrecision::kF32, kFloatBound);
}

TEST(BlockGradientLengthTest, EveryActivationHasItsGradient) {
  for (const Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
        Activation::kQuickGelu}) {
    for (const bool gated : {true, false}) {
      DecoderConfig config = TinyDecoderConfig();
      config.activation = activation;
      config.gated = gated;
      ExpectFloatIsDouble(config, kLength, GemmPrecision::kF32, kFloatBound);
    }
  }
}

// Padding, dead channels and the outliers of real hidden states: rows of zeros,
// where RMSNorm divides by sqrt(eps), and values of 10^4.
TEST(BlockGradientLengthTest, ZerosAndOutliersGiveFiniteGradients) {
  ThreadPool pool(2);
  for (const DecoderGraph& graph : DecoderGraphs()) {
    const DecoderConfig& config = graph.config;
    BlockWeights<float> weights = RandomBlock(config, 1, pool);
    Array<float> x = RandomRows<float>(kTokens, config.hidden, 5);
    std::fill_n(x.data(), 3 * config.hidden, 0.0f);
    for (int64_t t = 4; t < kTokens; ++t) {
      x[static_cast<size_t>(t * config.hidden + 1)] = 1e4f;
    }
    const Array<float> dy = RandomRows<float>(kTokens, config.hidden, 6);
    const MatrixView<const float> view(x.data(), kTokens, config.hidden);
    for (const GemmPrecision precision :
         {GemmPrecision::kF32, GemmPrecision::kBF16}) {
      Block<float> block(config, 1, kLength, precision);
      block.SetWeights(weights, /*gradients=*/true, pool);
      BlockActivations<float> acts;
      block.Forward(view, acts, pool);
      BlockGradients<float> gradients;
      WantEverything(gradients);
      block.Backward(view, acts,
                     MatrixView<const float>(dy.data(), kTokens, config.hidden),
                     gradients, pool);
      EXPECT_TRUE(AllFinite(Flat(acts.output()))) << graph.name;
      EXPECT_TRUE(AllFinite(Flat<float>(gradients.x.view()))) << graph.name;
      ForEachGradient(weights, gradients,
                      [&](const std::string& name, absl::Span<float>,
                          absl::Span<const float> gradient) {
                        EXPECT_TRUE(AllFinite(gradient))
                            << graph.name << ": " << name;
                      });
    }
  }
}

// What is not asked for stays as it was.
TEST(BlockGradientLengthTest, ComputesWhatIsWanted) {
  ThreadPool pool(2);
  const DecoderConfig config = TinyDecoderConfig();
  BlockWeights<float> weights = RandomBlock(config, 1, pool);
  const Array<float> x = RandomRows<float>(kTokens, config.hidden, 5);
  const MatrixView<const float> view(x.data(), kTokens, config.hidden);
  Block<float> block(config, 1, kLength, GemmPrecision::kF32);
  block.SetWeights(weights, /*gradients=*/true, pool);
  BlockActivations<float> acts;
  block.Forward(view, acts, pool);
  BlockGradients<float> all;
  block.Backward(view, acts, view, all, pool);
  for (const LinearId only : kAllLinears) {
    BlockGradients<float> gradients;
    gradients.want_weights = {};
    gradients.want_weights[static_cast<size_t>(only)] = true;
    block.Backward(view, acts, view, gradients, pool);
    for (const LinearId id : kAllLinears) {
      EXPECT_EQ(gradients[id].weight.empty(), id != only);
    }
    EXPECT_EQ(gradients[only].weight.span(), all[only].weight.span());
    EXPECT_TRUE(gradients.attention_norm.weight.empty());
    EXPECT_EQ(gradients.x.view().rows, 0);
  }
}

}  // namespace
}  // namespace nibble
