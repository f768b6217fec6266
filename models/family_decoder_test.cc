// Every form of GPT-J, GPT-NeoX and Falcon from a Hugging Face folder to
// logits, in floats and in integers.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/registry.h"
#include "tensor/dtype.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/quantized_model.h"
#include "testing/random_tensor.h"
#include "testing/reference_decoder.h"
#include "testing/tiny_families.h"

namespace nibble {
namespace {

using testing::IsOk;
using testing::QuantizedModel;
using testing::RandomValues;
using testing::TinyFamily;

// Rows of 32 to 80: whole groups, and a last one that is shorter.
constexpr RoundingOptions kInt4 = {/*bits=*/4, /*group_size=*/32,
                                   /*symmetric=*/false};

class FamilyDecoderTest : public ::testing::TestWithParam<TinyFamily> {
 protected:
  void SetUp() override {
    const std::string dir = absl::StrCat(
        ::testing::TempDir(), "/family_decoder_test_", GetParam().name);
    ASSERT_THAT(testing::WriteTinyFamily(dir, GetParam(), /*seed=*/3), IsOk());
    absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir);
    ASSERT_THAT(checkpoint, IsOk());
    checkpoint_ = *std::move(checkpoint);
    tokens_ = RandomValues(5).Tokens(40, checkpoint_.config.vocabulary);
  }

  // Of every token. [tokens, vocabulary]
  std::vector<float> Logits(const Decoder& decoder) {
    testing::DecoderSession session(decoder, DType::kF32, 64, pool_);
    return session.Append(tokens_, /*all_logits=*/true);
  }

  std::unique_ptr<Decoder> MakeDecoder(QuantizedModel& model,
                                       std::optional<Activations> activations) {
    DecoderOptions options;
    options.activations = activations;
    auto decoder = Decoder::Create(std::move(model.weights), options);
    EXPECT_THAT(decoder, IsOk());
    return *std::move(decoder);
  }

  ThreadPool pool_{1};
  Checkpoint checkpoint_;
  std::vector<int32_t> tokens_;
};

struct Distance {
  double worst = 0.0;     // largest difference
  double largest = 0.0;   // largest wanted value
  double relative = 0.0;  // root of the squares' sums
};

Distance DistanceOf(const std::vector<float>& got,
                    const std::vector<std::vector<double>>& want) {
  Distance result;
  double error = 0.0, signal = 0.0;
  size_t i = 0;
  for (const std::vector<double>& row : want) {
    for (const double value : row) {
      const double difference = std::abs(got[i++] - value);
      result.worst = std::max(result.worst, difference);
      result.largest = std::max(result.largest, std::abs(value));
      error += difference * difference;
      signal += value * value;
    }
  }
  EXPECT_EQ(i, got.size());
  result.relative = std::sqrt(error / signal);
  return result;
}

// The bound is that of DecoderGraphTest.
TEST_P(FamilyDecoderTest, MatchesTheReferenceForwardPass) {
  const auto decoder = testing::LoadF32Decoder(checkpoint_, pool_);
  const Distance distance = DistanceOf(
      Logits(*decoder), testing::ReferenceLogits(checkpoint_, tokens_));
  EXPECT_GE(distance.largest, 1.0);
  EXPECT_LE(distance.worst, 100 * 0x1p-24 * distance.largest);
}

TEST_P(FamilyDecoderTest, Int4WithF32ActivationsGivesTheBitsOfTheSameFloats) {
  QuantizedModel model = testing::RoundCheckpoint(checkpoint_, kInt4, pool_);
  const auto floats = testing::LoadF32Decoder(model.dequantized, pool_);
  EXPECT_EQ(Logits(*MakeDecoder(model, Activations::kF32)), Logits(*floats));
}

// The bound is that of PackedDecoderTest.
TEST_P(FamilyDecoderTest, Int4WithInt8ActivationsStaysNearTheSameFloats) {
  QuantizedModel model = testing::RoundCheckpoint(checkpoint_, kInt4, pool_);
  const std::vector<std::vector<double>> want =
      testing::ReferenceLogits(model.dequantized, tokens_);
  const Distance distance =
      DistanceOf(Logits(*MakeDecoder(model, std::nullopt)), want);
  EXPECT_LE(distance.relative, 0.03);
  EXPECT_GE(distance.relative, 0.001);  // They were rounded.
}

// Where the decoder's row of q, k, v is stored: [groups][q.., k, v][8].
int64_t StoredRow(const DecoderConfig& config, int64_t row) {
  const int64_t head = row / config.head_dim;
  const int64_t within = row % config.head_dim;
  const int64_t queries = config.heads / config.kv_heads;
  int64_t group = head / queries, slot = head % queries;
  if (head >= config.heads + config.kv_heads) {
    group = head - config.heads - config.kv_heads;
    slot = queries + 1;
  } else if (head >= config.heads) {
    group = head - config.heads;
    slot = queries;
  }
  return (group * (queries + 2) + slot) * config.head_dim + within;
}

TEST_P(FamilyDecoderTest, PackedRowsOfQkvAreThoseOfTheirHeads) {
  if (GetParam().groups == 0) GTEST_SKIP() << "q, k and v are not fused";
  std::string name;
  for (const std::string& tensor : checkpoint_.tensors->names()) {
    if (absl::StrContains(tensor, ".1.") &&
        absl::EndsWith(tensor, "query_key_value.weight")) {
      name = tensor;
    }
  }
  const TensorView stored = *checkpoint_.tensors->Find(name);
  const QuantizedModel model =
      testing::RoundCheckpoint(checkpoint_, {8, 32, true}, pool_);
  const LinearWeights& qkv = model.weights.layers[1].qkv;
  const DecoderConfig& config = checkpoint_.config;
  EXPECT_EQ(config.kv_heads, GetParam().groups);
  ASSERT_EQ(qkv.matrix.outputs(), stored.shape.dim(0));
  std::vector<float> row(static_cast<size_t>(config.hidden));
  for (int64_t i = 0; i < qkv.matrix.outputs(); ++i) {
    DequantizeRow(qkv.matrix, i, absl::MakeSpan(row));
    const int64_t from = StoredRow(config, i);
    const absl::Span<const float> want = stored.As<float>().subspan(
        static_cast<size_t>(from * config.hidden), row.size());
    // Half a step of 8 bits over values below 1; rows differ by far more.
    EXPECT_THAT(row, testing::AllNear(want, 0.5f / 127)) << i;
    if (!config.qkv_bias) continue;
    const std::string bias_name =
        name.substr(0, name.size() - 6) + "bias";  // "weight"
    const TensorView bias = *checkpoint_.tensors->Find(bias_name);
    EXPECT_EQ(qkv.bias[static_cast<size_t>(i)],
              bias.As<float>()[static_cast<size_t>(from)]);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyDecoderTest,
                         ::testing::ValuesIn(testing::TinyFamilies()),
                         testing::TinyFamilyName);

}  // namespace
}  // namespace nibble
