// Decoders over quantized checkpoints: their codes are held as they are, and
// what comes out is what their float values give.

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/matrix_gather.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/coded_tensors.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using testing::CodedCheckpoint;
using testing::CodedTensors;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::MemoryCodes;
using testing::RandomCodes;
using testing::RandomValues;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

struct Case {
  const char* name;
  CodedForm form;
  bool act_order;
  WeightFormat held_as;
};

const Case kCases[] = {
    {"Symmetric4",
     {0, 0, 4, 32, CodeOffset::kSymmetric, {}},
     false,
     WeightFormat::kInt4},
    {"Symmetric4ActOrder",
     {0, 0, 4, 32, CodeOffset::kSymmetric, {}},
     true,
     WeightFormat::kInt4},
    {"Zeros4",
     {0, 0, 4, 32, CodeOffset::kZeros, {}},
     false,
     WeightFormat::kInt4},
    {"Zeros3ActOrder",
     {0, 0, 3, 0, CodeOffset::kZeros, {}},
     true,
     WeightFormat::kInt4},
    {"Minimums4",
     {0, 0, 4, 32, CodeOffset::kMinimums, {}},
     false,
     WeightFormat::kInt4},
    {"Symmetric8",
     {0, 0, 8, 32, CodeOffset::kSymmetric, {}},
     false,
     WeightFormat::kInt8},
    {"Symmetric8ActOrder",
     {0, 0, 8, 0, CodeOffset::kSymmetric, {}},
     true,
     WeightFormat::kInt8},
    {"Zeros8", {0, 0, 8, 32, CodeOffset::kZeros, {}}, true, WeightFormat::kF32},
};

std::vector<float> Logits(const Decoder& decoder, ThreadPool& pool) {
  testing::DecoderSession session(decoder, DType::kF32, 32, pool);
  return session.Append(RandomValues(4).Tokens(12, 97), /*all_logits=*/true);
}

class CodedDecoderTest : public ::testing::TestWithParam<Case> {
 protected:
  Checkpoint Coded() {
    return CodedCheckpoint(
        testing::RandomCheckpoint(testing::TinyDecoderConfig(), 3),
        {GetParam().form, GetParam().act_order, /*head=*/true}, 5);
  }

  std::unique_ptr<Decoder> AsStored(const Checkpoint& checkpoint,
                                    Activations activations) {
    DecoderOptions options;
    options.activations = activations;
    absl::StatusOr<std::unique_ptr<Decoder>> decoder =
        Decoder::Load(checkpoint, options, pool_);
    EXPECT_THAT(decoder, IsOk());
    return decoder.ok() ? *std::move(decoder) : nullptr;
  }

  ThreadPool pool_{2};
};

INSTANTIATE_TEST_SUITE_P(Forms, CodedDecoderTest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

// Each row as a product sees it: the input order undone.
TEST_P(CodedDecoderTest, MatricesHaveTheValuesOfTheCheckpoint) {
  const Checkpoint checkpoint = Coded();
  const auto decoder = AsStored(checkpoint, Activations::kF32);
  ASSERT_NE(decoder, nullptr);
  MatrixGather gather(*checkpoint.tensors, pool_);
  const LayerWeights& layer = decoder->weights().layers[1];
  const LayerTensors& names = checkpoint.names.layers[1];
  const std::pair<const LinearWeights*, const LinearTensors*> parts[] = {
      {&layer.qkv, &names.qkv},
      {&layer.attention, &names.attention},
      {&layer.up, &names.up},
      {&layer.down, &names.down}};
  for (const auto& [linear, tensors] : parts) {
    EXPECT_EQ(linear->matrix.format(), GetParam().held_as);
    EXPECT_EQ(
        linear->input_order.empty(),
        !GetParam().act_order || GetParam().held_as == WeightFormat::kF32);
    const auto want = gather.Matrix(tensors->weight);
    ASSERT_THAT(want, IsOk());
    const absl::Span<const float> values = want->view.As<float>();
    const int64_t inputs = linear->matrix.inputs();
    std::vector<float> row(static_cast<size_t>(inputs));
    for (int64_t n = 0; n < linear->matrix.outputs(); ++n) {
      DequantizeRow(linear->matrix, n, absl::MakeSpan(row));
      for (int64_t k = 0; k < inputs; ++k) {
        const int64_t at =
            linear->input_order.empty() ? k : linear->input_order[k];
        ASSERT_EQ(row[k], values[n * inputs + at]);
      }
    }
  }
}

TEST_P(CodedDecoderTest, LogitsAreThoseOfTheFloatValues) {
  const Checkpoint checkpoint = Coded();
  const auto decoder = AsStored(checkpoint, Activations::kF32);
  ASSERT_NE(decoder, nullptr);
  const std::vector<float> want =
      Logits(*testing::LoadF32Decoder(checkpoint, pool_), pool_);
  // The same products; sums of up to 48 of them in another order.
  EXPECT_THAT(Logits(*decoder, pool_), testing::AllNear(want, 2e-4f));
}

TEST_P(CodedDecoderTest, Int8ActivationsAreTheDefault) {
  const Checkpoint checkpoint = Coded();
  const auto decoder = Decoder::Load(checkpoint, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  const bool integers = IsInteger(GetParam().held_as);
  EXPECT_EQ((*decoder)->weights().has_integer_matrix(), integers);
  EXPECT_EQ((*decoder)->activations(),
            integers ? Activations::kInt8 : Activations::kF32);
  const std::vector<float> want =
      Logits(*testing::LoadF32Decoder(checkpoint, pool_), pool_);
  // Eight bits in each of nine products of each path: a few percent of the
  // logits' deviation, which is about 1.
  EXPECT_THAT(Logits(**decoder, pool_), testing::AllNear(want, 0.25f));
}

TEST_P(CodedDecoderTest, FormatsThatAreAskedForDequantize) {
  const Checkpoint checkpoint = Coded();
  DecoderOptions options;
  options.weights = WeightFormat::kBF16;
  const auto decoder = Decoder::Load(checkpoint, options, pool_);
  ASSERT_THAT(decoder, IsOk());
  const LayerWeights& layer = (*decoder)->weights().layers[0];
  EXPECT_EQ(layer.up.matrix.format(), WeightFormat::kBF16);
  EXPECT_TRUE(layer.up.input_order.empty());
  EXPECT_EQ((*decoder)->activations(), Activations::kF32);
}

// ---- Matrices made of tensors that differ.

class FusedTest : public ::testing::Test {
 protected:
  FusedTest() : floats_(testing::RandomCheckpoint(config(), 3)) {
    coded_ = std::make_shared<CodedTensors>(floats_.tensors);
    // q, k and v of layer 0 as three tensors.
    const int64_t rows = config().qkv_dim(), third = rows / 4;
    coded_->Add("q", Codes(rows - 2 * third));
    coded_->Add("k", Codes(third));
    std::unique_ptr<MemoryCodes> v = Codes(third);
    v_ = v.get();
    coded_->Add("v", std::move(v));
    floats_.names.layers[0].qkv.weight = {
        {"q", 0, rows - 2 * third}, {"k", 0, third}, {"v", 0, third}};
    floats_.tensors = coded_;
  }

  static DecoderConfig config() { return testing::TinyDecoderConfig(); }

  std::unique_ptr<MemoryCodes> Codes(int64_t rows) {
    return RandomCodes({rows, 32, 4, 32, CodeOffset::kSymmetric, {}}, random_);
  }

  ThreadPool pool_{2};
  RandomValues random_{8};
  Checkpoint floats_;  // with coded tensors
  std::shared_ptr<CodedTensors> coded_;
  MemoryCodes* v_;
};

TEST_F(FusedTest, FloatMatricesBesideCodesAreBf16) {
  const auto decoder = Decoder::Load(floats_, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  const LayerWeights& layer = (*decoder)->weights().layers[0];
  EXPECT_EQ(layer.qkv.matrix.format(), WeightFormat::kInt4);
  EXPECT_EQ(layer.up.matrix.format(), WeightFormat::kBF16);
}

TEST_F(FusedTest, DifferentInputOrdersAreHeldAsExactFloats) {
  v_->Shuffle(random_);
  const auto decoder = Decoder::Load(floats_, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  const LinearWeights& qkv = (*decoder)->weights().layers[0].qkv;
  EXPECT_EQ(qkv.matrix.format(), WeightFormat::kF32);
  EXPECT_TRUE(qkv.input_order.empty());
  std::vector<float> row(32);
  const int64_t first = qkv.matrix.outputs() - v_->shape.outputs;
  for (int64_t n = 0; n < v_->shape.outputs; ++n) {
    DequantizeRow(qkv.matrix, first + n, absl::MakeSpan(row));
    for (int64_t k = 0; k < 32; ++k) {
      ASSERT_EQ(row[v_->order[k]], v_->Value(n, k));
    }
  }
}

TEST_F(FusedTest, CodesBesideFloatsAreHeldAsExactFloats) {
  floats_.names.layers[0].qkv.weight[2] = {"layer0.qkv.weight", 0,
                                           v_->shape.outputs};
  const auto decoder = Decoder::Load(floats_, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  EXPECT_EQ((*decoder)->weights().layers[0].qkv.matrix.format(),
            WeightFormat::kF32);
}

TEST_F(FusedTest, AnEmbeddingOfCodesIsReadAsFloats) {
  auto embedding =
      RandomCodes({97, 32, 4, 32, CodeOffset::kSymmetric, {}}, random_);
  const float want = embedding->Value(96, 31);
  coded_->Add("embedding", std::move(embedding));
  const auto decoder = Decoder::Load(floats_, {}, pool_);
  ASSERT_THAT(decoder, IsOk());
  const DecoderWeights& weights = (*decoder)->weights();
  ASSERT_EQ(weights.embedding->dtype, DType::kF32);
  EXPECT_EQ(weights.embedding->As<float>()[97 * 32 - 1], want);
}

TEST_F(FusedTest, NamesTheTensorWithABadScale) {
  v_->scales[3] = std::numeric_limits<float>::infinity();
  const auto error = AllOf(HasSubstr("coded: tensor v: "), HasSubstr("finite"));
  EXPECT_THAT(Decoder::Load(floats_, {}, pool_), StatusIs(kInvalid, error));
  v_->Shuffle(random_);  // as floats
  EXPECT_THAT(Decoder::Load(floats_, {}, pool_), StatusIs(kInvalid, error));
}

TEST_F(FusedTest, CheckTensorsComparesTheShapesOfCodes) {
  Checkpoint checkpoint =
      CodedCheckpoint(testing::RandomCheckpoint(config(), 3), {}, 5);
  EXPECT_THAT(CheckTensors(checkpoint), IsOk());
  checkpoint.config.ffn += 1;
  EXPECT_THAT(
      CheckTensors(checkpoint),
      StatusIs(kInvalid, AllOf(HasSubstr("layer0.down.weight"),
                               HasSubstr("[32, 48]"), HasSubstr("[32, 49]"))));
}

TEST_F(FusedTest, CheckWeightsRefusesAnOrderThatIsNoPermutation) {
  v_->Shuffle(random_);
  const std::vector<std::vector<int32_t>> bad = {
      std::vector<int32_t>(32, 0), std::vector<int32_t>(31, 0), {-1}, {32}};
  for (const std::vector<int32_t>& order : bad) {
    auto weights = LoadWeights(floats_, std::nullopt, nullptr, pool_);
    ASSERT_THAT(weights, IsOk());
    EXPECT_THAT(CheckWeights(*weights), IsOk());
    Array<int32_t>& to = weights->layers[1].up.input_order;
    to = Array<int32_t>(order.size() < 2 ? 32 : order.size());
    for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<int32_t>(i);
    for (size_t i = 0; i < order.size(); ++i) to[i] = order[i];
    EXPECT_THAT(CheckWeights(*weights),
                StatusIs(kInvalid, AllOf(HasSubstr("layers.1.up"),
                                         HasSubstr("input order"))));
  }
}

TEST_F(FusedTest, AHeadWithAnInputOrderNeedsAnEmbedding) {
  auto weights = LoadWeights(floats_, std::nullopt, nullptr, pool_);
  ASSERT_THAT(weights, IsOk());
  Array<int32_t>& order = weights->head.input_order;
  order = Array<int32_t>(32);
  for (size_t i = 0; i < 32; ++i) order[i] = static_cast<int32_t>(31 - i);
  EXPECT_THAT(CheckWeights(*weights), IsOk());
  weights->embedding.reset();
  EXPECT_THAT(CheckWeights(*weights), StatusIs(kInvalid, HasSubstr("head")));
}

}  // namespace
}  // namespace nibble
