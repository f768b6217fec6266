#include "models/synthetic/synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/synthetic/synthetic_shapes.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// A model of the shape's form, small.
DecoderConfig Shrunk(const std::string& shape) {
  DecoderConfig config = *SyntheticShape(shape);
  config.layers = 3;
  config.kv_heads = config.kv_heads == config.heads ? 4 : 1;
  config.heads = 4;
  config.head_dim = 16;
  config.hidden = 96;
  config.ffn = 160;
  config.vocabulary = 77;
  config.rope.rotary_dims = 8;
  config.windows.assign(3, 0);
  return config;
}

TEST(SyntheticModel, RunsInEveryShapesFormWithActivationsOfATextsScale) {
  ThreadPool pool(2);
  for (const std::string& shape : SyntheticShapeNames()) {
    for (const WeightFormat format :
         {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kBF16}) {
      SyntheticOptions options;
      options.weights = format;
      options.group_size = 32;
      absl::StatusOr<DecoderWeights> weights =
          MakeSyntheticWeights(Shrunk(shape), options, pool);
      ASSERT_THAT(weights.status(), testing::IsOk()) << shape;
      const absl::StatusOr<std::unique_ptr<Decoder>> decoder =
          Decoder::Create(*std::move(weights), {});
      ASSERT_THAT(decoder.status(), testing::IsOk()) << shape;
      testing::DecoderSession session(**decoder, DType::kF32, 32, pool);
      const std::vector<float> logits =
          session.Append(std::vector<int32_t>{1, 2, 3, 4}, false);
      double squares = 0;
      for (const float logit : logits) squares += logit * logit;
      const double scale =
          std::sqrt(squares / static_cast<double>(logits.size()));
      EXPECT_GT(scale, 0.1) << shape;
      EXPECT_LT(scale, 10.0) << shape;
    }
  }
}

TEST(SyntheticModel, TakesTheBytesThatItForetells) {
  ThreadPool pool(1);
  for (const std::string& shape : SyntheticShapeNames()) {
    const DecoderConfig config = Shrunk(shape);
    SyntheticOptions options;
    options.group_size = 64;
    options.head = WeightFormat::kInt8;
    const auto weights = MakeSyntheticWeights(config, options, pool);
    ASSERT_THAT(weights.status(), testing::IsOk());
    EXPECT_EQ(static_cast<int64_t>(weights->matrix_bytes()),
              *SyntheticMatrixBytes(config, options));
    const int64_t embedding =
        weights->embedding ? static_cast<int64_t>(weights->embedding->bytes)
                           : 0;
    EXPECT_EQ(static_cast<int64_t>(weights->matrix_bytes()) + embedding,
              *SyntheticBytes(config, options));
  }
}

TEST(SyntheticModel, TakesTheBitsThatTheFormatPromises) {
  const DecoderConfig config = *SyntheticShape("llama-2-7b");
  SyntheticOptions options;
  options.head = WeightFormat::kInt4;
  const double weights = static_cast<double>(
      config.layers * LayerWeightCount(config) + HeadWeightCount(config));
  // A code, and of each group of 128 an f16 scale and a zero point of 4 bits.
  EXPECT_NEAR(
      static_cast<double>(*SyntheticMatrixBytes(config, options)) * 8 / weights,
      4 + (16.0 + 4.0) / 128, 0.002);
  options.symmetric = true;
  options.group_size = 32;
  EXPECT_NEAR(
      static_cast<double>(*SyntheticMatrixBytes(config, options)) * 8 / weights,
      4.5, 0.002);
}

TEST(SyntheticModel, DependsOnTheSeedAlone) {
  ThreadPool one(1), two(2);
  const DecoderConfig config = Shrunk("tinyllama-1.1b");
  const auto logits = [&](uint64_t seed, ThreadPool& pool) {
    SyntheticOptions options;
    options.seed = seed;
    auto decoder =
        Decoder::Create(*MakeSyntheticWeights(config, options, pool), {});
    testing::DecoderSession session(**decoder, DType::kF32, 32, pool);
    return session.Append(std::vector<int32_t>{5, 6}, false);
  };
  EXPECT_EQ(logits(3, one), logits(3, two));
  EXPECT_NE(logits(3, one), logits(4, one));
}

TEST(SyntheticModel, RefusesGroupSizesThatHaveNoLayout) {
  ThreadPool pool(1);
  SyntheticOptions options;
  options.group_size = 33;
  const DecoderConfig config = Shrunk("llama-2-7b");
  for (const absl::Status& status :
       {MakeSyntheticWeights(config, options, pool).status(),
        SyntheticBytes(config, options).status()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("33"));
  }
}

TEST(SyntheticModel, RefusesAConfigurationThatDoesNotFitTogether) {
  ThreadPool pool(1);
  DecoderConfig config = Shrunk("llama-2-7b");
  config.kv_heads = 3;
  EXPECT_TRUE(
      absl::IsInvalidArgument(MakeSyntheticWeights(config, {}, pool).status()));
}

}  // namespace
}  // namespace nibble
