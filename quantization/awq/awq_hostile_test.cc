#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/awq/awq.h"
#include "quantization/awq/fake_block.h"
#include "quantization/awq/scale_loss.h"
#include "quantization/block/block_weights.h"
#include "quantization/folding/folding.h"
#include "tensor/view.h"

namespace nibble {
namespace {

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
  // What is not a number stays so beside a weight of 0.
  const MatrixView<const float> weights =
      std::as_const(fake.weights())[LinearId::kQkv].view();
  const std::vector<double> variances(static_cast<size_t>(weights.cols), 1.0);
  std::vector<float> scales(static_cast<size_t>(weights.cols), 1.0f);
  scales[1] = std::nanf("");
  for (const bool gptq : {false, true}) {
    RoundedLinear linear = {weights, fake.Statistics()[0].gram,
                            *Options().grids[0]};
    if (gptq) linear.variances = variances;
    EXPECT_TRUE(std::isinf(ScaleLoss(linear, 8).Of(scales, pool)));
  }
}

}  // namespace
}  // namespace nibble
