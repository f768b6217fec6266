#include "models/decoder.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/attention/kv_view.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_workspace.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/kv_pages.h"
#include "testing/matchers.h"
#include "testing/random_checkpoint.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::KvPages;
using testing::RandomCheckpoint;
using testing::RandomValues;
using testing::StatusIs;
using testing::TinyDecoderConfig;

constexpr int64_t kCapacity = 64;

// Logits of every token of a new sequence. [tokens, vocabulary]
std::vector<float> AllLogits(const Decoder& decoder,
                             absl::Span<const int32_t> tokens, size_t chunk,
                             DType kv_dtype, ThreadPool& pool) {
  testing::DecoderSession session(decoder, kv_dtype, kCapacity, pool);
  return session.AppendInChunks(tokens, chunk);
}

class DecoderTest : public ::testing::Test {
 protected:
  DecoderTest()
      : pool_(2),
        checkpoint_(RandomCheckpoint(TinyDecoderConfig(), 3)),
        decoder_(testing::LoadF32Decoder(checkpoint_, pool_)),
        cache_(checkpoint_.config, DType::kF32, kCapacity) {}

  int64_t vocabulary() const { return checkpoint_.config.vocabulary; }

  SequenceSlice Slice(absl::Span<const int32_t> tokens) const {
    SequenceSlice slice;
    slice.tokens = tokens;
    slice.layers = cache_.layers();
    return slice;
  }

  absl::Status Forward(const SequenceSlice& slice, int64_t rows) {
    std::vector<float> logits(static_cast<size_t>(rows * vocabulary()));
    return decoder_->Forward(
        {&slice, 1}, work_,
        MatrixView<float>(logits.data(), rows, vocabulary()), pool_);
  }

  ThreadPool pool_;
  Checkpoint checkpoint_;
  std::unique_ptr<Decoder> decoder_;
  KvPages cache_;
  DecoderWorkspace work_;
};

TEST_F(DecoderTest, ABatchOfSequencesGivesTheBitsOfEachAlone) {
  RandomValues random(8);
  const std::vector<int64_t> lengths = {1, 20, 7};
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::unique_ptr<KvPages>> caches;
  std::vector<SequenceSlice> batch;
  std::vector<float> want;
  for (const int64_t length : lengths) {
    prompts.push_back(random.Tokens(length, vocabulary()));
    const std::vector<float> alone = AllLogits(
        *decoder_, prompts.back(), prompts.back().size(), DType::kF32, pool_);
    // The second wants all logits, the others the last.
    const int64_t rows = length == 20 ? 20 : 1;
    want.insert(want.end(), alone.end() - rows * vocabulary(), alone.end());
  }
  for (const std::vector<int32_t>& prompt : prompts) {
    caches.push_back(std::make_unique<KvPages>(checkpoint_.config, DType::kF32,
                                               kCapacity, 8));
    SequenceSlice slice;
    slice.tokens = prompt;
    slice.layers = caches.back()->layers();
    slice.all_logits = prompt.size() == 20;
    batch.push_back(slice);
  }
  std::vector<float> got(want.size());
  ASSERT_THAT(
      decoder_->Forward(batch, work_,
                        MatrixView<float>(got.data(), 22, vocabulary()), pool_),
      IsOk());
  EXPECT_EQ(got, want);
}

TEST_F(DecoderTest, LogitsMayHaveAnyStride) {
  const std::vector<int32_t> tokens = {5, 6};
  SequenceSlice slice = Slice(tokens);
  slice.all_logits = true;
  std::vector<float> wide(2 * 128, -1.0f);
  ASSERT_THAT(decoder_->Forward(
                  {&slice, 1}, work_,
                  MatrixView<float>(wide.data(), 2, vocabulary(), 128), pool_),
              IsOk());
  const std::vector<float> want =
      AllLogits(*decoder_, tokens, 2, DType::kF32, pool_);
  for (int64_t v = 0; v < vocabulary(); ++v) {
    EXPECT_EQ(wide[static_cast<size_t>(128 + v)],
              want[static_cast<size_t>(vocabulary() + v)]);
  }
  EXPECT_EQ(wide[static_cast<size_t>(vocabulary())], -1.0f);
}

TEST_F(DecoderTest, WorkspaceStopsGrowingAtTheLargestBatch) {
  RandomValues random(9);
  const std::vector<int32_t> tokens = random.Tokens(30, vocabulary());
  ASSERT_THAT(Forward(Slice(tokens), 1), IsOk());
  const size_t bytes = work_.bytes();
  EXPECT_GT(bytes, 0u);
  SequenceSlice next = Slice(absl::MakeConstSpan(tokens).first(1));
  next.first_position = 30;
  ASSERT_THAT(Forward(next, 1), IsOk());
  EXPECT_EQ(work_.bytes(), bytes);
}

// The checkpoint with `change` made to the values of every tensor.
Checkpoint Changed(
    const Checkpoint& original,
    absl::FunctionRef<void(const std::string&, std::vector<float>&)> change) {
  auto tensors = std::make_shared<testing::MemoryTensors>();
  for (const std::string& name : original.tensors->names()) {
    const TensorView view = *original.tensors->Find(name);
    const absl::Span<const float> stored = view.As<float>();
    std::vector<float> values(stored.begin(), stored.end());
    change(name, values);
    tensors->Add(name, view.shape, std::move(values));
  }
  Checkpoint changed = original;
  changed.tensors = tensors;
  return changed;
}

TEST_F(DecoderTest, RejectsWeightsThatAreNotFinite) {
  DecoderConfig config = TinyDecoderConfig();
  config.qkv_bias = true;
  const Checkpoint sound = RandomCheckpoint(config, 5);
  for (const std::string broken :
       {"embedding", "layer1.qkv.weight", "layer0.qkv.bias",
        "final_norm.weight", "layer1.down.weight", "head.weight"}) {
    for (const float value : {NAN, INFINITY, -INFINITY}) {
      const Checkpoint damaged = Changed(
          sound, [&](const std::string& name, std::vector<float>& values) {
            if (name == broken) values[values.size() / 2] = value;
          });
      EXPECT_THAT(Decoder::Load(damaged, {}, pool_),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           AllOf(HasSubstr(broken), HasSubstr("finite"))));
    }
  }
}

TEST_F(DecoderTest, RejectsWeightsThatBf16WouldRoundToInfinity) {
  const float largest_that_fits = std::nextafter(0x1.FFp127f, 0.0f);
  for (const float value : {largest_that_fits, 0x1.FFp127f, -0x1.FFp127f}) {
    const Checkpoint large = Changed(
        checkpoint_, [&](const std::string& name, std::vector<float>& values) {
          if (name == "layer0.up.weight") values[3] = value;
        });
    DecoderOptions options;
    options.weights = WeightFormat::kF32;
    EXPECT_THAT(Decoder::Load(large, options, pool_), IsOk()) << value;
    options.weights = WeightFormat::kBF16;
    if (value == largest_that_fits) {
      EXPECT_THAT(Decoder::Load(large, options, pool_), IsOk());
    } else {
      EXPECT_THAT(
          Decoder::Load(large, options, pool_),
          StatusIs(absl::StatusCode::kOutOfRange,
                   AllOf(HasSubstr("layer0.up.weight"), HasSubstr("f32"))));
    }
  }
}

TEST_F(DecoderTest, Bf16WeightsAreExactForABf16Checkpoint) {
  // Eighths are bf16 numbers, so packing loses nothing.
  RandomValues random(10);
  const Checkpoint eighths =
      Changed(checkpoint_, [](const std::string&, std::vector<float>& values) {
        for (float& value : values) value = std::round(value * 8) * 0.125f;
      });
  DecoderOptions options;
  const auto narrow = Decoder::Load(eighths, options, pool_);
  ASSERT_THAT(narrow, IsOk());
  const std::unique_ptr<Decoder> wide = testing::LoadF32Decoder(eighths, pool_);
  EXPECT_LT((*narrow)->weight_bytes(), wide->weight_bytes());
  const std::vector<int32_t> tokens = random.Tokens(12, vocabulary());
  const std::vector<float> want =
      AllLogits(*wide, tokens, 12, DType::kF32, pool_);
  EXPECT_THAT(AllLogits(**narrow, tokens, 12, DType::kF32, pool_),
              testing::AllNear(want, 1e-4f));
}

TEST_F(DecoderTest, Bf16ActivationsStayNearF32) {
  DecoderOptions options;
  options.activations = Activations::kBF16;
  const auto rounded = Decoder::Load(checkpoint_, options, pool_);
  ASSERT_THAT(rounded, IsOk());
  RandomValues random(10);
  const std::vector<int32_t> tokens = random.Tokens(12, vocabulary());
  const std::vector<float> want =
      AllLogits(*decoder_, tokens, 12, DType::kF32, pool_);
  // Rounding to 8 bits in each of nine products of each path: a few percent of
  // the logits' deviation, which is about 1.
  EXPECT_THAT(AllLogits(**rounded, tokens, 12, DType::kF32, pool_),
              testing::AllNear(want, 0.25f));
}

TEST_F(DecoderTest, ReportsProgressAfterEachMatrix) {
  std::vector<int64_t> done;
  int64_t in_all = 0;
  DecoderOptions options;
  options.progress = [&](int64_t matrices, int64_t total) {
    done.push_back(matrices);
    in_all = total;
  };
  ASSERT_THAT(Decoder::Load(checkpoint_, options, pool_), IsOk());
  EXPECT_THAT(done, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(in_all, 9);
}

TEST_F(DecoderTest, RejectsOptionsItCannotServe) {
  DecoderOptions options;
  options.weights = WeightFormat::kInt4;
  EXPECT_THAT(Decoder::Load(checkpoint_, options, pool_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("int4")));
  options.weights = WeightFormat::kF32;
  options.activations = Activations::kBF16;
  EXPECT_THAT(Decoder::Load(checkpoint_, options, pool_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bf16")));
}

TEST_F(DecoderTest, RejectsTokensOutsideTheVocabulary) {
  for (const int32_t token : {-1, 97, INT32_MAX, INT32_MIN}) {
    const std::vector<int32_t> tokens = {3, token};
    EXPECT_THAT(Forward(Slice(tokens), 1),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("vocabulary of 97")))
        << token;
  }
}

TEST_F(DecoderTest, RejectsEmptyBatchAndEmptySlice) {
  EXPECT_THAT(
      Forward(Slice({}), 1),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no tokens")));
  EXPECT_THAT(
      decoder_->Forward({}, work_, MatrixView<float>(nullptr, 0, 97), pool_),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
}

TEST_F(DecoderTest, RejectsPositionsOutsideTheCache) {
  const std::vector<int32_t> tokens = {3};
  SequenceSlice slice = Slice(tokens);
  slice.first_position = kCapacity;
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("room for 64")));
  slice.first_position = -1;
  EXPECT_FALSE(Forward(slice, 1).ok());
  slice.first_position = INT64_MAX;
  EXPECT_FALSE(Forward(slice, 1).ok());
  slice.first_position = kCapacity - 1;
  EXPECT_THAT(Forward(slice, 1), IsOk());
}

TEST_F(DecoderTest, RejectsCacheOfAnotherModel) {
  const std::vector<int32_t> tokens = {3};
  SequenceSlice slice = Slice(tokens);
  slice.layers = cache_.layers().first(1);
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("1 of 2 layers")));
  DecoderConfig other = TinyDecoderConfig();
  other.kv_heads = 4;
  const KvPages wrong(other, DType::kF32, kCapacity);
  slice.layers = wrong.layers();
  EXPECT_THAT(Forward(slice, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("2 heads of 8")));
}

TEST_F(DecoderTest, RejectsLogitsOfAnotherShape) {
  const std::vector<int32_t> tokens = {3, 4};
  EXPECT_THAT(
      Forward(Slice(tokens), 2),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs [1, 97]")));
}

}  // namespace
}  // namespace nibble
