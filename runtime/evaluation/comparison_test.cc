// Models against each other, and against a baseline.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "runtime/evaluation/baseline.h"
#include "runtime/evaluation/bigram_model.h"
#include "runtime/evaluation/evaluation.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/evaluation_testing.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "testing/matchers.h"
#include "tokenizer/test_vocabularies.h"

namespace nibble {
namespace {

using ::nibble::testing::BigramEngine;
using ::nibble::testing::BigramLogits;
using ::nibble::testing::BigramLogProb;
using ::nibble::testing::ExpectSameBits;
using ::nibble::testing::IsOk;
using ::nibble::testing::kBigramVocabulary;
using ::nibble::testing::RandomSet;
using ::nibble::testing::ScoresOf;
using ::nibble::testing::StatusIs;
using ::nibble::testing::Uniform;
using ::nibble::testing::Wavier;
using ::nibble::testing::Wavy;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

TEST(EvaluateAgainst, AModelDoesNotDifferFromItself) {
  const auto a = BigramEngine(Wavy, 2);
  const auto b = BigramEngine(Wavy, 1);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                              EvaluateAgainst(*a, *b, set, {}));
  for (const TaskResult& result : results) {
    ASSERT_TRUE(result.comparison.has_value());
    EXPECT_EQ(result.comparison->kl_divergence, 0.0);
    EXPECT_EQ(result.comparison->greedy_agreement, 1.0);
    EXPECT_EQ(result.comparison->right_to_wrong, 0);
    EXPECT_EQ(result.comparison->wrong_to_right, 0);
    EXPECT_EQ(result.comparison->nll_difference, 0.0);
    EXPECT_EQ(result.comparison->tokens, result.metrics.tokens);
    EXPECT_EQ(result.reference->accuracy, result.metrics.accuracy);
  }
}

TEST(EvaluateAgainst, DivergenceIsThatOfTheKnownProbabilities) {
  const BigramLogits model = Wavier, reference = Wavy;
  const auto a = BigramEngine(model, 1);
  const auto b = BigramEngine(reference, 1);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                              EvaluateAgainst(*a, *b, set, {}));
  const auto divergence = [&](int32_t last) {
    double kl = 0.0;
    for (int32_t v = 0; v < kBigramVocabulary; ++v) {
      const double p = BigramLogProb(reference, v, last);
      kl += std::exp(p) * (p - BigramLogProb(model, v, last));
    }
    return kl;
  };
  for (size_t task = 0; task < set.tasks.size(); ++task) {
    double sum = 0.0;
    for (const EvaluationItem& item : set.tasks[task].items) {
      for (const ScoredSequence& sequence : item.sequences) {
        for (int64_t i = sequence.first - 1;
             i + 1 < sequence.first + sequence.scored(); ++i) {
          sum += divergence(sequence.tokens[static_cast<size_t>(i)]);
        }
      }
    }
    const Comparison& c = *results[task].comparison;
    EXPECT_NEAR(c.kl_divergence, sum / static_cast<double>(c.tokens), 1e-5);
    EXPECT_GT(c.kl_divergence, 0.01);
    EXPECT_EQ(c.kl_tokens, c.tokens);
  }
  // What each says is what it says alone.
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> alone,
                              Evaluate(*a, set, {}));
  ExpectSameBits(ScoresOf(results), ScoresOf(alone));
}

TEST(EvaluateAgainst, CountsFlipsOfTokensInATextAndOfItemsElsewhere) {
  // After any token the model's first choice is 5, and the reference's 6.
  const auto a = BigramEngine(
      [](int64_t token, int64_t) { return token == 5 ? 1.0 : 0.0; }, 1);
  const auto b = BigramEngine(
      [](int64_t token, int64_t) { return token == 6 ? 1.0 : 0.0; }, 1);
  EvaluationSet set;
  set.tasks.resize(2);
  set.tasks[0].spec.kind = TaskKind::kPerplexity;
  set.tasks[0].tokens_per_word = 1.0;
  set.tasks[0].items = {{{{{1, 5, 6, 6, 9, 6}, 1, 0}}, 0}};
  set.tasks[1].spec.kind = TaskKind::kLambada;
  set.tasks[1].items = {{{{{1, 5, 5}, 1, 0}}, 0},
                        {{{{1, 6, 5}, 1, 0}}, 0},
                        {{{{1, 2, 6}, 2, 0}}, 0}};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                              EvaluateAgainst(*a, *b, set, {}));
  const Comparison& text = *results[0].comparison;
  EXPECT_EQ(text.right_to_wrong, 3);
  EXPECT_EQ(text.wrong_to_right, 1);
  EXPECT_EQ(text.greedy_agreement, 0.0);
  EXPECT_EQ(results[0].metrics.accuracy, 0.2);
  EXPECT_EQ(results[0].reference->accuracy, 0.6);
  const Comparison& words = *results[1].comparison;
  EXPECT_EQ(words.wrong_to_right, 1);
  EXPECT_EQ(words.right_to_wrong, 1);
}

TEST(CheckSameTokenizer, RefusesModelsThatReadTextDifferently) {
  const auto engine = [](const MergePairs& merges) {
    return BigramEngine(Uniform, 1, FromJson(ByteLevelJson(merges)));
  };
  const auto plain = engine({{"a", "b"}});
  EXPECT_THAT(CheckSameTokenizer(*plain, *engine({{"a", "b"}})), IsOk());
  EXPECT_THAT(CheckSameTokenizer(*plain, *engine({{"a", "c"}})),
              StatusIs(kInvalid, HasSubstr("token 256")));
  EXPECT_THAT(CheckSameTokenizer(*plain, *engine({{"a", "b"}, {"b", "c"}})),
              StatusIs(kInvalid, HasSubstr("258 and 259")));
  EXPECT_THAT(CheckSameTokenizer(*plain, *BigramEngine(Uniform, 1)),
              StatusIs(kInvalid, HasSubstr("no tokenizer")));
}

TEST(Baseline, StandsForTheModelItWasMeasuredOn) {
  const auto a = BigramEngine(Wavier, 2);
  const auto b = BigramEngine(Wavy, 2);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Baseline baseline,
                              Baseline::Measure(*b, set, {}));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> live,
                              EvaluateAgainst(*a, *b, set, {}));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> kept,
                              EvaluateAgainst(*a, baseline, set, {}));
  ASSERT_EQ(kept.size(), live.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    ExpectSameBits(kept[i].scores, live[i].scores);
    EXPECT_EQ(kept[i].reference->mean_nll, live[i].reference->mean_nll);
    EXPECT_EQ(kept[i].comparison->greedy_agreement,
              live[i].comparison->greedy_agreement);
    EXPECT_EQ(kept[i].comparison->right_to_wrong,
              live[i].comparison->right_to_wrong);
    EXPECT_EQ(kept[i].comparison->kl_tokens, live[i].comparison->kl_tokens);
    // f16 keeps logits of up to 8 below the largest to 2^-9 each; a mean over
    // 101 of them and hundreds of tokens is far nearer.
    EXPECT_NEAR(kept[i].comparison->kl_divergence,
                live[i].comparison->kl_divergence, 1.0 / 512);
  }
  // Against itself: only the rounding is left, in second order.
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> self,
                              EvaluateAgainst(*b, baseline, set, {}));
  EXPECT_LT(self[0].comparison->kl_divergence, 1.0 / 512 / 512);
  EXPECT_EQ(self[0].comparison->greedy_agreement, 1.0);
}

TEST(Baseline, KeepsDistributionsWithinItsMemory) {
  const auto b = BigramEngine(Wavy, 1);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  int64_t tokens = 0;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> alone,
                              Evaluate(*b, set, {}));
  for (const TaskResult& result : alone) tokens += result.metrics.tokens;
  for (const int64_t rows : {int64_t{0}, int64_t{10}, tokens}) {
    Baseline::Options options;
    options.max_bytes = rows * kBigramVocabulary * 2;
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Baseline baseline,
                                Baseline::Measure(*b, set, options));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> self,
                                EvaluateAgainst(*b, baseline, set, {}));
    int64_t kept = 0;
    for (const TaskResult& result : self) {
      kept += result.comparison->kl_tokens;
      EXPECT_EQ(result.comparison->tokens, result.metrics.tokens);
      EXPECT_EQ(result.comparison->greedy_agreement, 1.0);
    }
    EXPECT_LE(kept, rows);
    EXPECT_GE(kept * 2, rows);
    EXPECT_EQ(std::isnan(self[0].comparison->kl_divergence), rows == 0);
  }
}

TEST(Baseline, RefusesAnotherSet) {
  const auto b = BigramEngine(Wavy, 1);
  EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Baseline baseline,
                              Baseline::Measure(*b, set, {}));
  set.tasks[1].items.pop_back();
  EXPECT_THAT(EvaluateAgainst(*b, baseline, set, {}).status(),
              StatusIs(kInvalid, HasSubstr("baseline")));
}

}  // namespace
}  // namespace nibble
