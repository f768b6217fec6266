// The phases of bench on a small model of random weights.

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "apps/benchmark/bench_session.h"
#include "apps/benchmark/engine_phases.h"
#include "apps/benchmark/product_phase.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/synthetic/synthetic_model.h"
#include "models/synthetic/synthetic_shapes.h"
#include "runtime/engine.h"
#include "runtime/sequence.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using testing::IsOk;

DecoderConfig SmallConfig() {
  DecoderConfig config = *SyntheticShape("tinyllama-1.1b");
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.hidden = 128;
  config.ffn = 160;
  config.vocabulary = 99;
  config.max_positions = 256;
  config.rope.rotary_dims = 32;
  config.rope.max_positions = 256;
  config.windows = {0, 0, 0};
  return config;
}

std::unique_ptr<Engine> MakeEngine(const DecoderConfig& config,
                                   WeightFormat format, DType kv_cache) {
  ThreadPool pool(1);
  SyntheticOptions options;
  options.weights = format;
  options.group_size = 64;
  absl::StatusOr<DecoderWeights> weights =
      MakeSyntheticWeights(config, options, pool);
  EXPECT_THAT(weights.status(), IsOk());
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create(*std::move(weights), {});
  EXPECT_THAT(decoder.status(), IsOk());
  EngineOptions engine_options;
  engine_options.model_path = "small";
  engine_options.threads = 1;
  engine_options.kv_cache = kv_cache;
  engine_options.memory_limit = 50'000'000;
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(engine_options, *std::move(decoder), nullptr);
  EXPECT_THAT(engine.status(), IsOk());
  return *std::move(engine);
}

TEST(FillCache, LeavesACacheThatDecodingGoesOnFrom) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const std::unique_ptr<Engine> engine =
        MakeEngine(SmallConfig(), WeightFormat::kInt4, dtype);
    const std::unique_ptr<Sequence> sequence = *engine->NewSequence();
    // Not a whole number of pages.
    ASSERT_THAT(FillCache(*engine, 150, *sequence), IsOk());
    EXPECT_EQ(sequence->position(), 150);
    std::vector<float> logits(99);
    ASSERT_THAT(engine->Decode(*sequence, 3, absl::MakeSpan(logits)), IsOk());
    double squares = 0;
    for (const float logit : logits) squares += logit * logit;
    EXPECT_GT(squares, 0);
    EXPECT_TRUE(std::isfinite(squares));
  }
}

TEST(FillCache, RefusesMoreThanTheMemoryForKeysAndValues) {
  const std::unique_ptr<Engine> engine =
      MakeEngine(SmallConfig(), WeightFormat::kInt4, DType::kF32);
  const std::unique_ptr<Sequence> sequence = *engine->NewSequence();
  // 1.5 kB each, 154 MB.
  EXPECT_TRUE(
      absl::IsResourceExhausted(FillCache(*engine, 100'000, *sequence)));
}

TEST(CacheBytesRead, CountsKeysAndValuesOfEveryLayer) {
  const DecoderConfig config = SmallConfig();
  const double width = 2 * 32;  // kv_heads * head_dim
  auto engine = MakeEngine(config, WeightFormat::kInt4, DType::kF32);
  EXPECT_EQ(CacheBytesRead(*engine, 10), 10 * 3 * 2 * width * 4);
  engine = MakeEngine(config, WeightFormat::kInt4, DType::kBF16);
  EXPECT_EQ(CacheBytesRead(*engine, 10), 10 * 3 * 2 * width * 2);
  // A scale of two or four bytes per head on top of one byte a value.
  engine = MakeEngine(config, WeightFormat::kInt4, DType::kI8);
  EXPECT_GE(CacheBytesRead(*engine, 10), 10 * 3 * 2 * (width + 2 * 2));
  EXPECT_LE(CacheBytesRead(*engine, 10), 10 * 3 * 2 * (width + 2 * 4));
}

TEST(CacheBytesRead, StopsAtALayersWindow) {
  DecoderConfig config = SmallConfig();
  config.windows = {0, 4, 100};
  const auto engine = MakeEngine(config, WeightFormat::kInt4, DType::kBF16);
  const double per_token = 2 * 2 * 32 * 2;
  EXPECT_EQ(CacheBytesRead(*engine, 10), (10 + 4 + 10) * per_token);
}

TEST(ProductRotation, CountsTheMatricesOfItsUnit) {
  const DecoderConfig config = SmallConfig();
  const auto engine = MakeEngine(config, WeightFormat::kInt4, DType::kF32);
  const LayerWeights& layer = engine->decoder().weights().layers[0];
  double bytes = 0, macs = 0;
  for (const std::string& name : ProductNames()) {
    ProductRotation rotation(name, 5, engine->decoder(), engine->pool());
    EXPECT_GT(rotation.Run(), 0) << name;
    if (name == "layer") {
      EXPECT_EQ(rotation.bytes(), bytes);
      EXPECT_EQ(rotation.macs(), macs);
      EXPECT_EQ(rotation.macs(), 5.0 * LayerWeightCount(config));
    } else if (name == "head") {
      EXPECT_EQ(rotation.macs(), 5.0 * HeadWeightCount(config));
    } else {
      bytes += rotation.bytes();
      macs += rotation.macs();
    }
  }
  EXPECT_EQ(ProductRotation("up", 1, engine->decoder(), engine->pool()).bytes(),
            static_cast<double>(layer.up.matrix.bytes()));
}

TEST(ProductRotation, LooksAtTheLimitsOnceATurnWhereWeightsFitIntoACache) {
  const auto engine =
      MakeEngine(SmallConfig(), WeightFormat::kInt4, DType::kF32);
  ProductRotation rotation("up", 1, engine->decoder(), engine->pool());
  EXPECT_EQ(rotation.AsWork(/*cache_bytes=*/32 << 20).units_between_samples, 3);
  EXPECT_GT(rotation.AsWork(/*cache_bytes=*/1).units_between_samples, 1000);
}

TEST(MultiplyOf, IsWhatTheProductsComputeWith) {
  const DecoderConfig config = SmallConfig();
  EXPECT_EQ(
      MultiplyOf(
          MakeEngine(config, WeightFormat::kInt4, DType::kF32)->decoder()),
      MultiplyKind::kInt8Dot);
  EXPECT_EQ(
      MultiplyOf(
          MakeEngine(config, WeightFormat::kBF16, DType::kF32)->decoder()),
      MultiplyKind::kF32);
}

TEST(DescribeModel, SaysHowWeightsAndCacheAreHeld) {
  const auto engine =
      MakeEngine(SmallConfig(), WeightFormat::kInt4, DType::kI8);
  const BenchModel model = DescribeModel(*engine, "small");
  EXPECT_EQ(model.shape, "small");
  EXPECT_EQ(model.weights, "int4");
  EXPECT_EQ(model.group_size, 64);
  EXPECT_EQ(model.symmetric, false);
  EXPECT_EQ(model.head, "bf16");
  EXPECT_EQ(model.activations, "int8");
  EXPECT_EQ(model.kv_cache, "int8");
  EXPECT_EQ(model.weight_bytes, static_cast<int64_t>(engine->weight_bytes()));
}

}  // namespace
}  // namespace nibble
