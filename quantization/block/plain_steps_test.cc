// Each step's gradient in double against finite differences.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "quantization/block/block_steps.h"
#include "quantization/block/block_testing.h"
#include "quantization/block/block_weights.h"
#include "tensor/buffer.h"
#include "tensor/view.h"
#include "testing/random_checkpoint.h"

namespace nibble {
namespace {

using ::nibble::testing::RandomRows;
using ::nibble::testing::TinyDecoderConfig;

constexpr int64_t kLength = 7;
constexpr int64_t kTokens = 2 * kLength;

// A matrix of random values.
struct Values {
  Values(int64_t rows, int64_t cols, uint64_t seed)
      : array(RandomRows<double>(rows, cols, seed)),
        view(array.data(), rows, cols) {}

  Array<double> array;
  MatrixView<double> view;
};

double Sum(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.array.size(); ++i) sum += a.array[i] * b.array[i];
  return sum;
}

// Each element of `gradient` against the central difference of `loss`, whose
// error is the third derivative times 1e-10 and the loss times 1e-11.
void ExpectSlopes(absl::Span<double> values, absl::Span<const double> gradient,
                  const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    values[i] = value + kStep;
    const double above = loss();
    values[i] = value - kStep;
    const double below = loss();
    values[i] = value;
    EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-7) << i;
  }
}

class PlainStepsTest : public ::testing::Test {
 protected:
  void Use(const DecoderConfig& config, int64_t layer = 0) {
    shape_ = std::make_unique<BlockShape>(config, layer, kLength,
                                          GemmPrecision::kF32);
    steps_ = MakePlainSteps(*shape_);
  }

  void ExpectNormGradient(NormKind kind) {
    DecoderConfig config = TinyDecoderConfig();
    config.norm = kind;
    Use(config);
    const int64_t n = config.hidden;
    BlockNorm<double> norm;
    norm.weight = RandomRows<double>(1, n, 2);
    if (kind == NormKind::kLayer) norm.bias = RandomRows<double>(1, n, 3);
    Values x(2, n, 4), y(2, n, 5), dy(2, n, 6), dx(2, n, 7);
    const Values base(2, n, 8);
    const auto loss = [&] {
      steps_->Norm(norm, x.view, y.view, pool_);
      return Sum(y, dy) + Sum(base, x);
    };
    steps_->NormInputGradient(norm, x.view, dy.view, base.view, dx.view, pool_);
    ExpectSlopes(x.array.span(), dx.array.span(), loss);
    std::vector<double> weight(norm.weight.size()), bias(norm.bias.size());
    steps_->NormWeightGradient(x.view, dy.view, absl::MakeSpan(weight),
                               absl::MakeSpan(bias), pool_);
    ExpectSlopes(norm.weight.span(), weight, loss);
    ExpectSlopes(norm.bias.span(), bias, loss);
  }

  void ExpectAttentionGradient(const DecoderConfig& config, int64_t layer) {
    Use(config, layer);
    Values qkv(kTokens, config.qkv_dim(), 2);
    Values rotated(kTokens, config.qkv_dim(), 2);
    Values out(kTokens, config.q_dim(), 3);
    const Values d_out(kTokens, config.q_dim(), 4);
    Values d_qkv(kTokens, config.qkv_dim(), 5);
    const auto loss = [&] {
      steps_->Copy(qkv.view, rotated.view, pool_);
      steps_->Attend(rotated.view, out.view, pool_);
      return Sum(out, d_out);
    };
    loss();
    steps_->AttendGradient(rotated.view, d_out.view, d_qkv.view, pool_);
    ExpectSlopes(qkv.array.span(), d_qkv.array.span(), loss);
  }

  ThreadPool pool_{1};
  std::unique_ptr<BlockShape> shape_;
  std::unique_ptr<BlockSteps<double>> steps_;
};

TEST_F(PlainStepsTest, RmsNormHasItsGradient) {
  ExpectNormGradient(NormKind::kRms);
}

TEST_F(PlainStepsTest, LayerNormHasItsGradient) {
  ExpectNormGradient(NormKind::kLayer);
}

TEST_F(PlainStepsTest, ActivationsHaveTheirGradients) {
  for (const Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
        Activation::kQuickGelu}) {
    for (const bool gated : {true, false}) {
      DecoderConfig config = TinyDecoderConfig();
      config.activation = activation;
      config.gated = gated;
      Use(config);
      const int64_t outputs = gated ? 2 * config.ffn : config.ffn;
      // With the identity for a matrix, x is the product.
      Values identity(outputs, outputs, 1);
      for (int64_t i = 0; i < outputs; ++i) {
        for (int64_t j = 0; j < outputs; ++j) identity.view.row(i)[j] = i == j;
      }
      steps_->SetLinear(LinearId::kUp, identity.view, false, pool_);
      Values x(1, outputs, 2), up(1, outputs, 3), dx(1, outputs, 4);
      Values inner(1, config.ffn, 5);
      const Values d_inner(1, config.ffn, 6);
      const auto loss = [&] {
        steps_->Inner(x.view, {}, up.view, inner.view, pool_);
        return Sum(inner, d_inner);
      };
      loss();
      steps_->InnerGradient(up.view, d_inner.view, dx.view, pool_);
      ExpectSlopes(x.array.span(), dx.array.span(), loss);
    }
  }
}

TEST_F(PlainStepsTest, ProductsHaveTheirGradients) {
  const DecoderConfig config = TinyDecoderConfig();
  Use(config);
  Values w(6, 5, 1), x(3, 5, 2), y(3, 6, 3), dx(3, 5, 5), dw(6, 5, 6);
  const Values dy(3, 6, 4);
  Array<double> bias = RandomRows<double>(1, 6, 7);
  const auto loss = [&] {
    steps_->SetLinear(LinearId::kQkv, w.view, true, pool_);
    steps_->Product(LinearId::kQkv, x.view, bias.span(), false, y.view, pool_);
    return Sum(y, dy);
  };
  loss();
  steps_->InputGradient(LinearId::kQkv, dy.view, false, dx.view, pool_);
  ExpectSlopes(x.array.span(), dx.array.span(), loss);
  steps_->WeightGradient(dy.view, x.view, false, dw.view, pool_);
  ExpectSlopes(w.array.span(), dw.array.span(), loss);
  std::vector<double> db(6);
  steps_->BiasGradient(dy.view, absl::MakeSpan(db), pool_);
  ExpectSlopes(bias.span(), db, loss);
}

TEST_F(PlainStepsTest, AttentionHasItsGradient) {
  DecoderConfig config = TinyDecoderConfig();
  ExpectAttentionGradient(config, 0);
  config.rope.style = RopeStyle::kInterleaved;
  config.rope.rotary_dims = 6;
  config.kv_heads = 1;
  ExpectAttentionGradient(config, 0);
  config.windows = {0, 3};
  ExpectAttentionGradient(config, 1);
}

TEST_F(PlainStepsTest, AlibiHasItsGradient) {
  DecoderConfig config = TinyDecoderConfig();
  config.heads = config.kv_heads = 3;  // slopes of no power of two
  config.rope.style = RopeStyle::kNone;
  config.alibi = true;
  ExpectAttentionGradient(config, 0);
}

}  // namespace
}  // namespace nibble
