// What an engine refuses, and what it says: options, prompts, memory.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/decoder_config.h"
#include "runtime/engine.h"
#include "runtime/kv_cache.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyModelOptions;
using ::nibble::testing::WriteTinyLlama;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kVocabulary = 97;

std::string Folder(const std::string& name) {
  return absl::StrCat(::testing::TempDir(), "/engine_limits_", name);
}

EngineOptions Options(const std::string& folder) {
  EngineOptions options;
  options.model_path = folder;
  options.threads = 1;
  return options;
}

std::vector<int32_t> Tokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<int32_t>((i * i * 31 + i * 7 + 3) % kVocabulary));
  }
  return tokens;
}

class EngineLimitsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new std::string(Folder("plain"));
    ASSERT_THAT(WriteTinyLlama(*folder_, TinyModelOptions()), IsOk());
  }
  static void TearDownTestSuite() { delete folder_; }

  void SetUp() override {
    NIBBLE_ASSERT_OK_AND_ASSIGN(engine_, Engine::Open(Options(*folder_)));
  }

  static std::string* folder_;
  std::unique_ptr<Engine> engine_;
};

std::string* EngineLimitsTest::folder_ = nullptr;

TEST_F(EngineLimitsTest, RejectsMoreTokensThanTheContext) {
  const int64_t context = engine_->context();
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  EXPECT_THAT(engine_->Prefill(*sequence, Tokens(context + 1), {}),
              StatusIs(kInvalid, AllOf(HasSubstr(absl::StrCat(context)),
                                       HasSubstr("shorten the prompt"))));
  EXPECT_EQ(sequence->position(), 0);
  ASSERT_THAT(engine_->Prefill(*sequence, Tokens(context), {}), IsOk());
  std::vector<float> logits(kVocabulary);
  EXPECT_THAT(engine_->Decode(*sequence, 1, absl::MakeSpan(logits)),
              StatusIs(kInvalid, HasSubstr("context")));
  EXPECT_EQ(sequence->position(), context);
}

TEST_F(EngineLimitsTest, RejectsTokensOutsideTheVocabulary) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  for (int32_t bad : {-1, 97, 2147483647}) {
    EXPECT_THAT(engine_->Prefill(*sequence, {1, 2, bad}, {}),
                StatusIs(kInvalid, AllOf(HasSubstr("token 2"),
                                         HasSubstr(absl::StrCat(bad)))));
    std::vector<float> logits(kVocabulary);
    EXPECT_THAT(engine_->Decode(*sequence, bad, absl::MakeSpan(logits)),
                StatusIs(kInvalid, HasSubstr(absl::StrCat(bad))));
  }
  EXPECT_EQ(sequence->position(), 0);
}

TEST_F(EngineLimitsTest, RejectsAnEmptyPrompt) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  EXPECT_THAT(engine_->Prefill(*sequence, {}, {}),
              StatusIs(kInvalid, HasSubstr("empty")));
}

TEST_F(EngineLimitsTest, RejectsLogitsOfTheWrongSize) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  std::vector<float> logits(kVocabulary - 1);
  EXPECT_THAT(engine_->Prefill(*sequence, {1}, absl::MakeSpan(logits)),
              StatusIs(kInvalid, HasSubstr("logits")));
  EXPECT_THAT(engine_->Decode(*sequence, 1, absl::MakeSpan(logits)),
              StatusIs(kInvalid, HasSubstr("logits")));
  EXPECT_EQ(sequence->position(), 0);
}

TEST_F(EngineLimitsTest, OneBadTokenOfABatchMovesNoSequence) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto a, engine_->NewSequence());
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto b, engine_->NewSequence());
  Sequence* const sequences[] = {a.get(), b.get()};
  const int32_t tokens[] = {1, -1};
  std::vector<float> logits(2 * kVocabulary);
  EXPECT_THAT(
      engine_->DecodeBatch(sequences, tokens,
                           MatrixView<float>(logits.data(), 2, kVocabulary)),
      StatusIs(kInvalid, HasSubstr("-1")));
  EXPECT_EQ(a->position(), 0);
  EXPECT_EQ(b->position(), 0);
}

TEST_F(EngineLimitsTest, RejectsOptionsOutOfRange) {
  const auto error_of = [&](auto change) {
    EngineOptions options = Options(*folder_);
    change(options);
    return Engine::Open(options).status();
  };
  EXPECT_THAT(error_of([](auto& o) { o.weights = WeightFormat::kInt8; }),
              StatusIs(kInvalid, HasSubstr("weights")));
  EXPECT_THAT(error_of([](auto& o) { o.kv_cache = DType::kF16; }),
              StatusIs(kInvalid, HasSubstr("kv_cache")));
  EXPECT_THAT(error_of([](auto& o) { o.threads = -1; }),
              StatusIs(kInvalid, HasSubstr("threads")));
  EXPECT_THAT(error_of([](auto& o) { o.context = -1; }),
              StatusIs(kInvalid, HasSubstr("context")));
  EXPECT_THAT(error_of([](auto& o) { o.prefill_chunk = -1; }),
              StatusIs(kInvalid, HasSubstr("prefill_chunk")));
  EXPECT_THAT(error_of([](auto& o) { o.memory_limit = -1; }),
              StatusIs(kInvalid, HasSubstr("memory_limit")));
  EXPECT_THAT(error_of([](auto& o) {
                o.weights = WeightFormat::kF32;
                o.activations = Activations::kBF16;
              }),
              StatusIs(kInvalid, HasSubstr("activations")));
}

TEST_F(EngineLimitsTest, ContextMayBeShortenedAndNotStretched) {
  EngineOptions options = Options(*folder_);
  options.context = 10;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  EXPECT_EQ(engine->context(), 10);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
  EXPECT_THAT(engine->Prefill(*sequence, Tokens(11), {}),
              StatusIs(kInvalid, HasSubstr("context of 10")));
  options.context = engine_->config().max_positions + 1;
  EXPECT_THAT(Engine::Open(options), StatusIs(kInvalid, HasSubstr("context")));
}

TEST_F(EngineLimitsTest, CacheLargerThanTheMachineIsAnErrorThatSaysSo) {
  const std::string folder = Folder("long");
  TinyModelOptions model;
  model.max_positions = kMaxPositions;
  model.layers = 4;
  model.heads = 64;
  model.kv_heads = 64;
  model.head_dim = 64;
  ASSERT_THAT(WriteTinyLlama(folder, model), IsOk());
  EngineOptions options = Options(folder);
  options.context = kMaxPositions;  // 2^24 tokens of 128 KiB: 2.2 TB
  EXPECT_THAT(Engine::Open(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("context"), HasSubstr("GB"))));
  options.context = 0;  // only what is used is taken
  EXPECT_THAT(Engine::Open(options), IsOk());
}

TEST_F(EngineLimitsTest, WeightsAboveTheMemoryLimitAreAnErrorThatSaysSo) {
  EngineOptions options = Options(*folder_);
  options.weights = WeightFormat::kF32;
  options.memory_limit = 20000;
  EXPECT_THAT(Engine::Open(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("weights"), HasSubstr("20 kB"),
                             HasSubstr("bf16"))));
}

TEST_F(EngineLimitsTest,
       SequenceThatOutgrowsTheMemoryLimitIsAnErrorAndKeepsItsText) {
  EngineOptions options = Options(*folder_);
  const int64_t block = engine_->kv_pool().layout().block_bytes();
  options.memory_limit =
      static_cast<int64_t>(engine_->weight_bytes()) + block * 3 / 2;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
  const std::vector<int32_t> tokens = Tokens(kPageTokens);
  ASSERT_THAT(engine->Prefill(*sequence, tokens, {}), IsOk());
  std::vector<float> logits(kVocabulary);
  EXPECT_THAT(
      engine->Decode(*sequence, 1, absl::MakeSpan(logits)),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("KV cache")));
  EXPECT_EQ(sequence->position(), kPageTokens);
  sequence->Truncate(kPageTokens - 1);
  EXPECT_THAT(engine->Decode(*sequence, 1, absl::MakeSpan(logits)), IsOk());
}

TEST_F(EngineLimitsTest, MissingModelIsNamed) {
  EXPECT_THAT(Engine::Open(Options(Folder("absent"))).status().message(),
              HasSubstr("engine_limits_absent"));
}

}  // namespace
}  // namespace nibble
