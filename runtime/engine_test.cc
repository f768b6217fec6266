#include "runtime/engine.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyModelOptions;
using ::nibble::testing::WriteTinyLlama;
using ::testing::HasSubstr;

constexpr int64_t kVocabulary = 97;

std::string Folder(const std::string& name) {
  return absl::StrCat(::testing::TempDir(), "/engine_", name);
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

using Rows = std::vector<std::vector<float>>;  // [tokens][vocabulary]

// The logits of every token, read in one call.
Rows AllLogits(Engine& engine, absl::Span<const int32_t> tokens) {
  Rows rows;
  auto sequence = engine.NewSequence();
  EXPECT_THAT(sequence, IsOk());
  EXPECT_THAT(engine.PrefillWithLogits(
                  **sequence, tokens, 0,
                  [&](int64_t first, MatrixView<const float> logits) {
                    EXPECT_EQ(first, static_cast<int64_t>(rows.size()));
                    for (int64_t i = 0; i < logits.rows; ++i) {
                      rows.emplace_back(logits.row(i),
                                        logits.row(i) + logits.cols);
                    }
                    return absl::OkStatus();
                  }),
              IsOk());
  return rows;
}

// The same, read one by one.
Rows DecodedLogits(Engine& engine, absl::Span<const int32_t> tokens) {
  Rows rows;
  auto sequence = engine.NewSequence();
  EXPECT_THAT(sequence, IsOk());
  for (int32_t token : tokens) {
    rows.emplace_back(engine.vocabulary());
    EXPECT_THAT(engine.Decode(**sequence, token, absl::MakeSpan(rows.back())),
                IsOk());
  }
  return rows;
}

class EngineTest : public ::testing::Test {
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

std::string* EngineTest::folder_ = nullptr;

TEST_F(EngineTest, TellsWhatWasOpened) {
  EXPECT_EQ(engine_->path(), *folder_);
  EXPECT_EQ(engine_->vocabulary(), kVocabulary);
  EXPECT_EQ(engine_->context(), engine_->config().max_positions);
  EXPECT_EQ(engine_->weights(), WeightFormat::kBF16);
  EXPECT_EQ(engine_->tokenizer(), nullptr);
  EXPECT_EQ(engine_->pool().threads(), 1);
  EXPECT_GT(engine_->weight_bytes(), 0u);
  EXPECT_GT(engine_->load_time(), absl::ZeroDuration());
}

TEST_F(EngineTest, PrefillBatchGivesTheBitsOfSequencesReadAlone) {
  const std::vector<int32_t> tokens = Tokens(40);
  const absl::Span<const int32_t> all(tokens);
  const Rows expected = AllLogits(*engine_, tokens);
  const Rows other = AllLogits(*engine_, all.subspan(20));
  auto first = engine_->NewSequence(), second = engine_->NewSequence();
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  // Without logits, then with some of one and all of the other.
  PrefillPart part;
  part.sequence = first->get();
  part.tokens = all.first(10);
  part.last_logits = 0;
  ASSERT_THAT(
      engine_->PrefillBatch({part}, MatrixView<float>(nullptr, 0, kVocabulary)),
      IsOk());
  EXPECT_EQ((*first)->position(), 10);
  part.tokens = all.subspan(10);
  part.last_logits = 3;
  const PrefillPart whole = {second->get(), all.subspan(20), 20};
  std::vector<float> memory(23 * kVocabulary);
  const MatrixView<float> logits(memory.data(), 23, kVocabulary);
  ASSERT_THAT(engine_->PrefillBatch({part, whole}, logits), IsOk());
  EXPECT_EQ((*first)->position(), 40);
  for (int64_t i = 0; i < 23; ++i) {
    const absl::Span<const float> row = logits.row_span(i);
    EXPECT_EQ(row, absl::MakeConstSpan(i < 3 ? expected[37 + i] : other[i - 3]))
        << i;
  }
}

TEST_F(EngineTest, PrefillBatchRefusesWhatDoesNotFitAndMovesNothing) {
  auto sequence = engine_->NewSequence();
  ASSERT_THAT(sequence, IsOk());
  std::vector<float> memory(4 * kVocabulary);
  const MatrixView<float> logits(memory.data(), 1, kVocabulary);
  const std::vector<int32_t> tokens = Tokens(200), bad = {1, kVocabulary};
  const absl::Span<const int32_t> all(tokens);
  const PrefillPart good = {sequence->get(), all.first(2), 1};
  for (const PrefillPart& part :
       {PrefillPart{sequence->get(), {}, 1}, PrefillPart{sequence->get(), all},
        PrefillPart{sequence->get(), bad},
        PrefillPart{sequence->get(), all.first(2), 3},
        PrefillPart{sequence->get(), all.first(2), -1},
        PrefillPart{sequence->get(), all.first(2), 2}}) {
    EXPECT_THAT(engine_->PrefillBatch({part}, logits),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  }
  EXPECT_THAT(engine_->PrefillBatch({}, logits),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  EXPECT_EQ((*sequence)->position(), 0);
  EXPECT_THAT(engine_->PrefillBatch({good}, logits), IsOk());
}

struct Setting {
  WeightFormat weights;
  DType kv_cache;
};

class EngineEqualityTest : public ::testing::TestWithParam<Setting> {};

TEST_P(EngineEqualityTest, ChunksThreadsAndSingleTokensGiveTheSameBits) {
  const std::string folder = Folder("equality");
  ASSERT_THAT(WriteTinyLlama(folder, TinyModelOptions()), IsOk());
  const std::vector<int32_t> tokens = Tokens(100);
  Rows expected;
  for (int threads : {1, 2}) {
    for (int64_t chunk : {1000, 1, 7, 64}) {
      EngineOptions options = Options(folder);
      options.threads = threads;
      options.prefill_chunk = chunk;
      options.weights = GetParam().weights;
      options.kv_cache = GetParam().kv_cache;
      NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
      const Rows rows = AllLogits(*engine, tokens);
      ASSERT_EQ(rows.size(), tokens.size());
      if (expected.empty()) expected = rows;
      EXPECT_EQ(rows, expected) << threads << " threads, chunks of " << chunk;

      NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
      std::vector<float> last(kVocabulary);
      ASSERT_THAT(engine->Prefill(*sequence, tokens, absl::MakeSpan(last)),
                  IsOk());
      EXPECT_EQ(last, expected.back());
      EXPECT_EQ(sequence->position(), 100);
      if (chunk == 1000) {
        EXPECT_EQ(DecodedLogits(*engine, tokens), expected);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Dtypes, EngineEqualityTest,
    ::testing::Values(Setting{WeightFormat::kF32, DType::kF32},
                      Setting{WeightFormat::kF32, DType::kBF16},
                      Setting{WeightFormat::kBF16, DType::kF32},
                      Setting{WeightFormat::kBF16, DType::kBF16}));

TEST_F(EngineTest, Bf16CacheRoundsKeysAndValues) {
  EngineOptions options = Options(*folder_);
  options.kv_cache = DType::kBF16;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto narrow, Engine::Open(options));
  const std::vector<int32_t> tokens = Tokens(50);
  const std::vector<float> a = AllLogits(*engine_, tokens).back();
  const std::vector<float> b = AllLogits(*narrow, tokens).back();
  EXPECT_NE(a, b);
  EXPECT_EQ(2 * narrow->kv_pool().layout().block_bytes(),
            engine_->kv_pool().layout().block_bytes());
}

TEST_F(EngineTest, LogitsFromATokenOnAreTheLastOnes) {
  const std::vector<int32_t> tokens = Tokens(90);
  const Rows all = AllLogits(*engine_, tokens);
  for (int64_t first : {0, 1, 63, 64, 89}) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
    int64_t next = first;
    ASSERT_THAT(engine_->PrefillWithLogits(
                    *sequence, tokens, first,
                    [&](int64_t position, MatrixView<const float> logits) {
                      EXPECT_EQ(position, next);
                      for (int64_t i = 0; i < logits.rows; ++i) {
                        const std::vector<float> row(
                            logits.row(i), logits.row(i) + logits.cols);
                        EXPECT_EQ(row, all[next++]);
                      }
                      return absl::OkStatus();
                    }),
                IsOk());
    EXPECT_EQ(next, 90);
  }
}

TEST_F(EngineTest, ErrorOfTheSinkEndsTheCall) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  EXPECT_THAT(
      engine_->PrefillWithLogits(*sequence, Tokens(5), 0,
                                 [](int64_t, MatrixView<const float>) {
                                   return absl::DataLossError("disk full");
                                 }),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("disk full")));
}

TEST_F(EngineTest, BatchGivesEachSequenceItsOwnLogits) {
  const std::vector<int32_t> tokens = Tokens(80);
  const absl::Span<const int32_t> all = tokens;
  // Three texts of different lengths, two of them with a common past.
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto a, engine_->NewSequence());
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto b, engine_->NewSequence());
  ASSERT_THAT(engine_->Prefill(*a, all.subspan(0, 70), {}), IsOk());
  ASSERT_THAT(engine_->Prefill(*b, all.subspan(10, 3), {}), IsOk());
  Sequence c = a->Fork();
  Sequence* const sequences[] = {a.get(), b.get(), &c};
  const int32_t next[] = {5, 6, 7};
  std::vector<float> logits(3 * kVocabulary);
  ASSERT_THAT(
      engine_->DecodeBatch(sequences, next,
                           MatrixView<float>(logits.data(), 3, kVocabulary)),
      IsOk());
  EXPECT_EQ(a->position(), 71);
  EXPECT_EQ(b->position(), 4);

  const auto expect_row = [&](int row, std::vector<int32_t> text) {
    text.push_back(next[row]);
    const std::vector<float> got(logits.begin() + row * kVocabulary,
                                 logits.begin() + (row + 1) * kVocabulary);
    EXPECT_EQ(got, AllLogits(*engine_, text).back()) << "row " << row;
  };
  expect_row(0, {tokens.begin(), tokens.begin() + 70});
  expect_row(1, {tokens.begin() + 10, tokens.begin() + 13});
  expect_row(2, {tokens.begin(), tokens.begin() + 70});
}

TEST_F(EngineTest, TruncatedSequenceForgets) {
  const std::vector<int32_t> tokens = Tokens(80);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
  ASSERT_THAT(engine_->Prefill(*sequence, tokens, {}), IsOk());
  sequence->Truncate(30);
  std::vector<float> logits(kVocabulary);
  ASSERT_THAT(engine_->Decode(*sequence, 11, absl::MakeSpan(logits)), IsOk());
  std::vector<int32_t> text(tokens.begin(), tokens.begin() + 30);
  text.push_back(11);
  EXPECT_EQ(logits, AllLogits(*engine_, text).back());
}

TEST_F(EngineTest, SequenceGivesItsMemoryBack) {
  {
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
    ASSERT_THAT(engine_->Prefill(*sequence, Tokens(70), {}), IsOk());
    EXPECT_EQ(engine_->kv_pool().blocks_in_use(), 2);
  }
  EXPECT_EQ(engine_->kv_pool().blocks_in_use(), 0);
}

TEST_F(EngineTest, CancelledPrefillKeepsWhatWasRead) {
  EngineOptions options = Options(*folder_);
  options.prefill_chunk = 8;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
  int asked = 0;
  PrefillOptions prefill;
  prefill.cancelled = [&] { return ++asked > 2; };
  EXPECT_EQ(engine->Prefill(*sequence, Tokens(40), {}, prefill).code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(sequence->position(), 16);
}

TEST_F(EngineTest, ReportsProgressOfLoadingAndReading) {
  std::vector<int64_t> done;
  int64_t total = 0;
  const ProgressCallback record = [&](int64_t now, int64_t all) {
    done.push_back(now);
    total = all;
  };
  EngineOptions options = Options(*folder_);
  options.prefill_chunk = 16;
  options.load_progress = record;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), total);

  done.clear();
  PrefillOptions prefill;
  prefill.progress = record;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
  ASSERT_THAT(engine->Prefill(*sequence, Tokens(40), {}, prefill), IsOk());
  EXPECT_THAT(done, ::testing::ElementsAre(16, 32, 40));
  EXPECT_EQ(total, 40);
}

// Its angles depend on the length of the text; a prompt's is known from its
// first chunk on.
TEST_F(EngineTest, DynamicRopeBeyondTheTrainedPositionsIsTheSameInChunks) {
  const std::string folder = Folder("dynamic");
  TinyModelOptions model;
  model.max_positions = 32;
  model.extra_config = R"("rope_scaling": {"type": "dynamic", "factor": 2.0})";
  ASSERT_THAT(WriteTinyLlama(folder, model), IsOk());
  const std::vector<int32_t> tokens = Tokens(200);
  Rows expected;
  for (int64_t chunk : {1000, 7, 1}) {
    EngineOptions options = Options(folder);
    options.prefill_chunk = chunk;
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
    const Rows rows = AllLogits(*engine, tokens);
    if (expected.empty()) expected = rows;
    EXPECT_EQ(rows, expected) << "chunks of " << chunk;
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
    std::vector<float> last(kVocabulary);
    ASSERT_THAT(engine->Prefill(*sequence, tokens, absl::MakeSpan(last)),
                IsOk());
    EXPECT_EQ(last, expected.back());
    if (chunk == 1000) {
      // Read one by one, as if generated, keys keep the angles of their time.
      EXPECT_NE(DecodedLogits(*engine, tokens), expected);
    }
  }
}

TEST_F(EngineTest, Bf16ActivationsRoundTheLogitsALittle) {
  EngineOptions options = Options(*folder_);
  options.activations = Activations::kBF16;
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  const std::vector<int32_t> tokens = Tokens(20);
  const std::vector<float> exact = AllLogits(*engine_, tokens).back();
  const std::vector<float> rounded = AllLogits(*engine, tokens).back();
  float largest = 0, difference = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::abs(exact[i]));
    difference = std::max(difference, std::abs(exact[i] - rounded[i]));
  }
  EXPECT_GT(difference, 0);
  // bf16 rounds by 2^-9 relative; two layers of products of random signs stay
  // well below ten such steps of the largest logit.
  EXPECT_LT(difference, largest * 10 / 512);
}

}  // namespace
}  // namespace nibble
