#include "runtime/score.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kVocabulary = 97;

class ScoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = ::testing::TempDir() + "/score_model";
    ASSERT_THAT(nibble::testing::WriteTinyLlama(
                    folder, nibble::testing::TinyModelOptions()),
                IsOk());
    EngineOptions options;
    options.model_path = folder;
    options.threads = 1;
    options.prefill_chunk = 16;  // scores cross chunks
    NIBBLE_ASSERT_OK_AND_ASSIGN(engine_, Engine::Open(options));
    for (int32_t i = 0; i < 50; ++i) tokens_.push_back(i * i * 7 % 97);
  }

  // Logits after tokens_[0..position], one token at a time.
  std::vector<std::vector<float>> DecodedLogits(
      absl::Span<const int32_t> tokens) {
    std::vector<std::vector<float>> rows;
    auto sequence = engine_->NewSequence();
    EXPECT_THAT(sequence, IsOk());
    for (int32_t token : tokens) {
      rows.emplace_back(kVocabulary);
      EXPECT_THAT(
          engine_->Decode(**sequence, token, absl::MakeSpan(rows.back())),
          IsOk());
    }
    return rows;
  }

  static double LogProb(const std::vector<float>& logits, int32_t token) {
    double sum = 0;
    for (float logit : logits) sum += std::exp(static_cast<double>(logit));
    return logits[token] - std::log(sum);
  }

  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
};

TEST_F(ScoreTest, LogprobsAreThoseOfTheSoftmaxOfDecodedLogits) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                              ScoreTokens(*engine_, tokens_));
  const auto rows = DecodedLogits(tokens_);
  ASSERT_EQ(scores.logprobs.size(), tokens_.size() - 1);
  double sum = 0;
  for (size_t i = 1; i < tokens_.size(); ++i) {
    const double expected = LogProb(rows[i - 1], tokens_[i]);
    EXPECT_NEAR(scores.logprobs[i - 1], expected, 1e-5);
    sum += expected;
  }
  EXPECT_NEAR(scores.sum_logprob, sum, 1e-4);
}

TEST_F(ScoreTest, ScoresOnlyFromTheFirstTokenAskedFor) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores all, ScoreTokens(*engine_, tokens_));
  for (int64_t first : {1, 2, 17, 49, 50}) {
    ScoreOptions options;
    options.first = first;
    NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                                ScoreTokens(*engine_, tokens_, options));
    EXPECT_EQ(scores.logprobs,
              std::vector<float>(all.logprobs.begin() + first - 1,
                                 all.logprobs.end()));
  }
}

TEST_F(ScoreTest, GreedyContinuationIsRecognised) {
  std::vector<int32_t> text(tokens_.begin(), tokens_.begin() + 5);
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> logits = DecodedLogits(text).back();
    text.push_back(static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  ScoreOptions options;
  options.first = 5;
  NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                              ScoreTokens(*engine_, text, options));
  EXPECT_TRUE(scores.is_greedy);
  EXPECT_THAT(scores.greedy, ::testing::ElementsAre(1, 1, 1, 1));

  text[6] = (text[6] + 1) % kVocabulary;
  NIBBLE_ASSERT_OK_AND_ASSIGN(scores, ScoreTokens(*engine_, text, options));
  EXPECT_FALSE(scores.is_greedy);
  EXPECT_EQ(scores.greedy[0], 1);
  EXPECT_EQ(scores.greedy[1], 0);
}

TEST_F(ScoreTest, SinkGetsTheLogitsOfEveryToken) {
  const auto expected = DecodedLogits(tokens_);
  int64_t next = 0;
  ScoreOptions options;
  options.first = 30;
  options.logits = [&](int64_t first, MatrixView<const float> logits) {
    EXPECT_EQ(first, next);
    for (int64_t i = 0; i < logits.rows; ++i) {
      const std::vector<float> row(logits.row(i), logits.row(i) + logits.cols);
      EXPECT_EQ(row, expected[next++]);
    }
    return absl::OkStatus();
  };
  NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                              ScoreTokens(*engine_, tokens_, options));
  EXPECT_EQ(next, 50);
  EXPECT_EQ(scores.logprobs.size(), 20u);
}

TEST_F(ScoreTest, SingleTokenHasNoScores) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores, ScoreTokens(*engine_, {5}));
  EXPECT_TRUE(scores.logprobs.empty());
  EXPECT_EQ(scores.sum_logprob, 0.0);
  EXPECT_TRUE(scores.is_greedy);
}

TEST_F(ScoreTest, RejectsBadRequests) {
  EXPECT_THAT(ScoreTokens(*engine_, {}), StatusIs(kInvalid, HasSubstr("no")));
  ScoreOptions options;
  for (int64_t first : {int64_t{-1}, int64_t{0}, int64_t{51}}) {
    options.first = first;
    EXPECT_THAT(ScoreTokens(*engine_, tokens_, options),
                StatusIs(kInvalid, HasSubstr("token")));
  }
  EXPECT_THAT(ScoreTokens(*engine_, {1, 97}),
              StatusIs(kInvalid, HasSubstr("97")));
  EXPECT_THAT(ScoreTokens(*engine_, std::vector<int32_t>(200, 1)),
              StatusIs(kInvalid, HasSubstr("context")));
}

}  // namespace
}  // namespace nibble
