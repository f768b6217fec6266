// Every graph on integer weights: against the double-precision forward pass on
// the numbers that the integers stand for, and against itself under every way
// of cutting the work.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/rope.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_workspace.h"
#include "tensor/dtype.h"
#include "tensor/view.h"
#include "testing/decoder_graphs.h"
#include "testing/decoder_session.h"
#include "testing/kv_pages.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"

namespace nibble {
namespace {

using testing::DecoderGraph;
using testing::IsOk;
using testing::QuantizedModel;
using testing::RandomCheckpoint;
using testing::RandomValues;
using testing::RoundCheckpoint;

constexpr int64_t kCapacity = 64;

// Rows are 32 to 84 long: whole groups, and a last one that is shorter.
constexpr RoundingOptions kInt4 = {/*bits=*/4, /*group_size=*/32,
                                   /*symmetric=*/false};
constexpr RoundingOptions kInt4Symmetric = {4, 32, true};
constexpr RoundingOptions kInt8 = {8, 32, true};

std::unique_ptr<Decoder> MakeDecoder(QuantizedModel& model,
                                     std::optional<Activations> activations) {
  DecoderOptions options;
  options.activations = activations;
  auto decoder = Decoder::Create(std::move(model.weights), options);
  EXPECT_THAT(decoder, IsOk());
  return *std::move(decoder);
}

// Logits of every token of a new sequence. [tokens, vocabulary]
std::vector<float> AllLogits(const Decoder& decoder,
                             absl::Span<const int32_t> tokens, size_t chunk,
                             DType kv_dtype, ThreadPool& pool) {
  testing::DecoderSession session(decoder, kv_dtype, kCapacity, pool);
  return session.AppendInChunks(tokens, chunk);
}

struct Distance {
  double worst = 0.0;    // largest difference
  double largest = 0.0;  // largest wanted value
  double error = 0.0;    // sums of squares
  double signal = 0.0;

  double relative() const { return std::sqrt(error / signal); }
};

Distance DistanceOf(const std::vector<float>& got,
                    const std::vector<std::vector<double>>& want) {
  Distance result;
  size_t i = 0;
  for (const std::vector<double>& row : want) {
    for (const double value : row) {
      const double difference = std::abs(got[i++] - value);
      result.worst = std::max(result.worst, difference);
      result.largest = std::max(result.largest, std::abs(value));
      result.error += difference * difference;
      result.signal += value * value;
    }
  }
  EXPECT_EQ(i, got.size());
  return result;
}

class PackedDecoderTest : public ::testing::TestWithParam<DecoderGraph> {
 protected:
  ThreadPool one_{1};
  ThreadPool two_{2};
  RandomValues random_{5};
};

// The bound is that of DecoderGraphTest: with f32 activations the arithmetic is
// that of float weights.
TEST_P(PackedDecoderTest, F32ActivationsMatchTheReferenceForwardPass) {
  const Checkpoint checkpoint = RandomCheckpoint(GetParam().config, 11);
  const std::vector<int32_t> tokens =
      random_.Tokens(40, checkpoint.config.vocabulary);
  for (const RoundingOptions& rounding : {kInt4, kInt4Symmetric, kInt8}) {
    QuantizedModel model = RoundCheckpoint(checkpoint, rounding, two_);
    const Distance distance =
        DistanceOf(AllLogits(*MakeDecoder(model, Activations::kF32), tokens, 40,
                             DType::kF32, two_),
                   testing::ReferenceLogits(model.dequantized, tokens));
    EXPECT_GE(distance.largest, 1.0);
    EXPECT_LE(distance.worst, 100 * 0x1p-24 * distance.largest);
  }
}

TEST_P(PackedDecoderTest, F32ActivationsGiveTheBitsOfTheSameFloatWeights) {
  const Checkpoint checkpoint = RandomCheckpoint(GetParam().config, 11);
  const std::vector<int32_t> tokens =
      random_.Tokens(20, checkpoint.config.vocabulary);
  QuantizedModel model = RoundCheckpoint(checkpoint, kInt4, two_);
  const std::unique_ptr<Decoder> floats =
      testing::LoadF32Decoder(model.dequantized, two_);
  EXPECT_EQ(AllLogits(*MakeDecoder(model, Activations::kF32), tokens, 20,
                      DType::kF32, two_),
            AllLogits(*floats, tokens, 20, DType::kF32, two_));
}

// int8 activations: a value is off by up to half of 1/127 of its group's
// largest, evenly spread: by sqrt(1/12) / 127 of it, and a group of 32 normal
// values has a largest of some 2.1 deviations: 0.5% of a product's deviation.
// Nine products follow one another, each adding its own 0.5% while the norms
// keep the scale: sqrt(9) * 0.5% = 1.5%. Twice that for networks that amplify.
TEST_P(PackedDecoderTest, Int8ActivationsStayNearTheReferenceForwardPass) {
  const Checkpoint checkpoint = RandomCheckpoint(GetParam().config, 11);
  const std::vector<int32_t> tokens =
      random_.Tokens(40, checkpoint.config.vocabulary);
  for (const RoundingOptions& rounding : {kInt4, kInt4Symmetric, kInt8}) {
    QuantizedModel model = RoundCheckpoint(checkpoint, rounding, two_);
    const std::unique_ptr<Decoder> decoder = MakeDecoder(model, std::nullopt);
    EXPECT_EQ(decoder->activations(), Activations::kInt8);
    const Distance distance =
        DistanceOf(AllLogits(*decoder, tokens, 40, DType::kF32, two_),
                   testing::ReferenceLogits(model.dequantized, tokens));
    EXPECT_LE(distance.relative(), 0.03);
    // Were they the same, the activations would not have been rounded.
    EXPECT_GE(distance.relative(), 0.001);
  }
}

TEST_P(PackedDecoderTest, BitsDoNotDependOnChunksOrThreads) {
  DecoderConfig config = GetParam().config;
  if (config.rope.scaling.type == RopeScaling::kDynamic) {
    config.rope.max_positions = kCapacity;  // Past it they do.
  }
  QuantizedModel model =
      RoundCheckpoint(RandomCheckpoint(config, 12), kInt4, one_);
  const std::unique_ptr<Decoder> decoder = MakeDecoder(model, std::nullopt);
  const std::vector<int32_t> tokens = random_.Tokens(37, config.vocabulary);
  for (const DType kv : {DType::kF32, DType::kI8}) {
    const std::vector<float> whole = AllLogits(*decoder, tokens, 37, kv, one_);
    for (const size_t chunk : {1, 3, 16, 37}) {
      EXPECT_EQ(AllLogits(*decoder, tokens, chunk, kv, one_), whole) << chunk;
      EXPECT_EQ(AllLogits(*decoder, tokens, chunk, kv, two_), whole) << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, PackedDecoderTest,
                         ::testing::ValuesIn(testing::DecoderGraphs()),
                         testing::GraphName);

// One forward pass over several sequences, the last token's logits of each.
std::vector<float> BatchLogits(const Decoder& decoder,
                               absl::Span<const std::vector<int32_t>> prompts,
                               ThreadPool& pool) {
  std::vector<std::unique_ptr<testing::KvPages>> caches;
  std::vector<SequenceSlice> batch;
  for (const std::vector<int32_t>& prompt : prompts) {
    caches.push_back(std::make_unique<testing::KvPages>(decoder.config(),
                                                        DType::kI8, kCapacity));
    SequenceSlice slice;
    slice.tokens = prompt;
    slice.layers = caches.back()->layers();
    batch.push_back(slice);
  }
  const int64_t vocabulary = decoder.config().vocabulary;
  const int64_t rows = static_cast<int64_t>(prompts.size());
  std::vector<float> logits(static_cast<size_t>(rows * vocabulary));
  DecoderWorkspace work;
  EXPECT_THAT(
      decoder.Forward(batch, work,
                      MatrixView<float>(logits.data(), rows, vocabulary), pool),
      IsOk());
  return logits;
}

TEST(PackedDecoderBatchTest, ABatchOfSequencesGivesTheBitsOfEachAlone) {
  ThreadPool pool(2);
  QuantizedModel model = RoundCheckpoint(
      RandomCheckpoint(testing::TinyDecoderConfig(), 3), kInt4, pool);
  const std::unique_ptr<Decoder> decoder = MakeDecoder(model, std::nullopt);
  RandomValues random(8);
  std::vector<std::vector<int32_t>> prompts;
  std::vector<float> alone;
  for (const int64_t length : {1, 20, 7, 1, 33}) {
    prompts.push_back(random.Tokens(length, decoder->config().vocabulary));
    const std::vector<float> logits =
        BatchLogits(*decoder, {&prompts.back(), 1}, pool);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  EXPECT_EQ(BatchLogits(*decoder, prompts, pool), alone);
}

// Greedy text after a prompt.
std::vector<int32_t> GreedyText(const Decoder& decoder, DType kv_dtype,
                                ThreadPool& pool) {
  testing::DecoderSession session(decoder, kv_dtype, kCapacity, pool);
  const std::vector<int32_t> prompt =
      RandomValues(9).Tokens(24, decoder.config().vocabulary);
  std::vector<float> logits = session.Append(prompt, /*all_logits=*/false);
  return session.Greedy(logits, 32);
}

class PackedDecoderIsaTest : public ::testing::TestWithParam<Isa> {
 protected:
  ~PackedDecoderIsaTest() override { EXPECT_THAT(LimitIsa(before_), IsOk()); }

  const Isa before_ = ActiveIsa();
};

TEST_P(PackedDecoderIsaTest, EveryIsaGivesTheTokensOfTheScalarReference) {
  if (!CpuSupports(GetParam())) GTEST_SKIP() << WhyUnsupported(GetParam());
  ThreadPool pool(2);
  const Checkpoint checkpoint =
      RandomCheckpoint(testing::TinyDecoderConfig(), 3);
  for (const RoundingOptions& rounding : {kInt4, kInt4Symmetric, kInt8}) {
    QuantizedModel model = RoundCheckpoint(checkpoint, rounding, pool);
    const std::unique_ptr<Decoder> decoder = MakeDecoder(model, std::nullopt);
    for (const DType kv : {DType::kF32, DType::kI8}) {
      ASSERT_THAT(LimitIsa(Isa::kScalar), IsOk());
      const std::vector<int32_t> want = GreedyText(*decoder, kv, pool);
      ASSERT_THAT(LimitIsa(GetParam()), IsOk());
      EXPECT_EQ(GreedyText(*decoder, kv, pool), want);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, PackedDecoderIsaTest,
                         ::testing::ValuesIn(kAllIsas),
                         [](const ::testing::TestParamInfo<Isa>& info) {
                           return std::string(IsaName(info.param));
                         });

}  // namespace
}  // namespace nibble
