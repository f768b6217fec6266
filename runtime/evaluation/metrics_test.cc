#include "runtime/evaluation/metrics.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/token_score.h"

namespace nibble {
namespace {

EvaluationTask Task(TaskKind kind) {
  EvaluationTask task;
  task.spec.kind = kind;
  return task;
}

// An item whose choices have so many characters.
EvaluationItem Item(int64_t gold, const std::vector<int64_t>& characters) {
  EvaluationItem item;
  item.gold = gold;
  for (const int64_t count : characters) {
    ScoredSequence sequence;
    sequence.characters = count;
    item.sequences.push_back(sequence);
  }
  return item;
}

SequenceScore Score(double sum, int64_t tokens = 1, int64_t greedy = 0) {
  return {sum, tokens, greedy};
}

TEST(Metrics, ChoosesByLogProbabilityAndByCharacter) {
  EvaluationTask task = Task(TaskKind::kPiqa);
  // -8 beats -10; by character -10 / 20 beats -8 / 10.
  task.items = {Item(0, {20, 10}), Item(1, {20, 10})};
  const std::vector<SequenceScore> scores = {Score(-10), Score(-8), Score(-10),
                                             Score(-8)};
  const TaskMetrics metrics = ComputeMetrics(task, scores);
  EXPECT_EQ(metrics.samples, 2);
  EXPECT_EQ(metrics.accuracy, 0.5);
  EXPECT_EQ(metrics.accuracy_norm, 0.5);
  task.items = {Item(1, {20, 10}), Item(1, {20, 10})};
  EXPECT_EQ(ComputeMetrics(task, scores).accuracy, 1.0);
  EXPECT_EQ(ComputeMetrics(task, scores).accuracy_norm, 0.0);
}

TEST(Metrics, TheFirstOfEqualChoicesWinsAndEmptyOnesDoNotDivideByZero) {
  EvaluationTask task = Task(TaskKind::kHellaSwag);
  task.items = {Item(0, {5, 5, 0})};
  const std::vector<SequenceScore> scores = {Score(-2), Score(-2), Score(-3)};
  EXPECT_EQ(ComputeMetrics(task, scores).accuracy, 1.0);
  EXPECT_EQ(ComputeMetrics(task, scores).accuracy_norm, 1.0);
}

TEST(Metrics, StandardErrorIsOfTheSample) {
  EvaluationTask task = Task(TaskKind::kWinoGrande);
  std::vector<SequenceScore> scores;
  for (const int64_t gold : {0, 0, 0, 1}) {
    task.items.push_back(Item(gold, {1, 1}));
    scores.push_back(Score(-1));
    scores.push_back(Score(-2));
  }
  const TaskMetrics metrics = ComputeMetrics(task, scores);
  EXPECT_EQ(metrics.accuracy, 0.75);
  // sqrt(p (1 - p) / (n - 1)) = sqrt(3/16 / 3).
  EXPECT_NEAR(metrics.accuracy_stderr, 0.25, 1e-15);
  EXPECT_EQ(metrics.accuracy_norm, 0.0);  // not a figure of this task
}

TEST(Metrics, OneSampleHasNoStandardError) {
  EvaluationTask task = Task(TaskKind::kLambada);
  task.items = {Item(0, {1})};
  const TaskMetrics metrics = ComputeMetrics(task, {{Score(-1, 2, 2)}});
  EXPECT_EQ(metrics.accuracy, 1.0);
  EXPECT_TRUE(std::isnan(metrics.accuracy_stderr));
}

TEST(Metrics, LambadaWantsEveryTokenAndAveragesWords) {
  EvaluationTask task = Task(TaskKind::kLambada);
  task.items = {Item(0, {1}), Item(0, {1}), Item(0, {1})};
  const std::vector<SequenceScore> scores = {Score(-1, 2, 2), Score(-4, 3, 2),
                                             Score(-1, 1, 1)};
  const TaskMetrics metrics = ComputeMetrics(task, scores);
  EXPECT_DOUBLE_EQ(metrics.accuracy, 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(metrics.mean_nll, 2.0);
  EXPECT_DOUBLE_EQ(metrics.perplexity, std::exp(2.0));
  EXPECT_EQ(metrics.tokens, 6);
  // Of 1, 4, 1: variance 3 over n - 1.
  EXPECT_NEAR(metrics.mean_nll_stderr, 1.0, 1e-15);
}

TEST(Metrics, PerplexityIsOfTokensNotOfWindows) {
  EvaluationTask task = Task(TaskKind::kPerplexity);
  task.items = {Item(0, {0}), Item(0, {0})};
  task.tokens_per_word = 1.5;
  const std::vector<SequenceScore> scores = {Score(-30, 10, 4),
                                             Score(-3, 2, 2)};
  const TaskMetrics metrics = ComputeMetrics(task, scores);
  EXPECT_DOUBLE_EQ(metrics.mean_nll, 33.0 / 12.0);
  EXPECT_DOUBLE_EQ(metrics.perplexity, std::exp(33.0 / 12.0));
  EXPECT_DOUBLE_EQ(metrics.word_perplexity, std::exp(33.0 / 12.0 * 1.5));
  EXPECT_DOUBLE_EQ(metrics.accuracy, 0.5);
  // Windows of one kind: the error of the mean of their means.
  const std::vector<SequenceScore> even = {Score(-20, 10), Score(-40, 10)};
  EXPECT_NEAR(ComputeMetrics(task, even).mean_nll_stderr, 1.0, 1e-12);
}

TEST(Metrics, MainMetricAndItsDirection) {
  TaskMetrics metrics;
  metrics.perplexity = 7;
  metrics.accuracy = 0.5;
  metrics.accuracy_norm = 0.6;
  EXPECT_EQ(MainMetric(TaskKind::kPerplexity, metrics), 7);
  EXPECT_EQ(MainMetric(TaskKind::kHellaSwag, metrics), 0.5);
  EXPECT_EQ(MainMetric(TaskKind::kLambada, metrics), 0.5);
  EXPECT_FALSE(HigherIsBetter(TaskKind::kPerplexity));
  EXPECT_TRUE(HigherIsBetter(TaskKind::kPiqa));
}

TEST(SignTest, IsTheBinomialTail) {
  EXPECT_EQ(SignTestPValue(0, 0), 1.0);
  EXPECT_EQ(SignTestPValue(3, 3), 1.0);
  EXPECT_NEAR(SignTestPValue(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(SignTestPValue(5, 0), 2.0 / 32, 1e-12);
  EXPECT_NEAR(SignTestPValue(1, 9), 2.0 * (1 + 10) / 1024, 1e-12);
  EXPECT_NEAR(SignTestPValue(5000, 5000), 1.0, 1e-12);
  EXPECT_LT(SignTestPValue(4000, 6000), 1e-80);
  EXPECT_GT(SignTestPValue(4000, 6000), 0.0);
}

TEST(Compare, PairsItems) {
  EvaluationTask task = Task(TaskKind::kPiqa);
  std::vector<SequenceScore> model, reference;
  // Right before and now: 1 1, 1 0, 1 0, 0 1, 0 0.
  for (const auto& [before, now] :
       std::vector<std::pair<bool, bool>>{{true, true},
                                          {true, false},
                                          {true, false},
                                          {false, true},
                                          {false, false}}) {
    task.items.push_back(Item(0, {1, 1}));
    reference.push_back(Score(before ? -1 : -3));
    reference.push_back(Score(-2));
    model.push_back(Score(now ? -1 : -3));
    model.push_back(Score(-2));
  }
  DivergenceSums sums;
  sums.tokens = sums.kl_tokens = 4;
  sums.agreed = 3;
  sums.kl = 2.0;  // 0, 0, 1, 1
  sums.kl_squared = 2.0;
  sums.right_to_wrong = 99;  // of tokens; items count here
  const Comparison c = CompareScores(task, model, reference, sums);
  EXPECT_EQ(c.right_to_wrong, 2);
  EXPECT_EQ(c.wrong_to_right, 1);
  EXPECT_DOUBLE_EQ(c.accuracy_difference, -0.2);
  // Of 0, -1, -1, 1, 0 about -0.2: squares sum to 2.8.
  EXPECT_NEAR(c.accuracy_difference_stderr, std::sqrt(2.8 / 4 / 5), 1e-15);
  EXPECT_EQ(c.flips_p_value, 1.0);
  EXPECT_EQ(c.greedy_agreement, 0.75);
  EXPECT_EQ(c.kl_divergence, 0.5);
  EXPECT_NEAR(c.kl_stderr, std::sqrt(1.0 / 3 / 4), 1e-15);
  EXPECT_EQ(c.nll_difference, 0.0);
}

TEST(Compare, PerplexityFlipsAreOfTokens) {
  EvaluationTask task = Task(TaskKind::kPerplexity);
  task.items = {Item(0, {0}), Item(0, {0})};
  const std::vector<SequenceScore> reference = {Score(-10, 5), Score(-20, 5)};
  const std::vector<SequenceScore> model = {Score(-11, 5), Score(-23, 5)};
  DivergenceSums sums;
  sums.tokens = sums.kl_tokens = 10;
  sums.right_to_wrong = 3;
  sums.wrong_to_right = 1;
  const Comparison c = CompareScores(task, model, reference, sums);
  EXPECT_EQ(c.right_to_wrong, 3);
  EXPECT_DOUBLE_EQ(c.accuracy_difference, -0.2);
  EXPECT_DOUBLE_EQ(c.nll_difference, 0.4);
  EXPECT_NEAR(c.nll_difference_stderr, 0.2, 1e-12);
}

TEST(TokenScore, UniformLogitsGiveTheVocabularysLogarithm) {
  const std::vector<float> logits(1000, 3.5f);
  const TokenScore score = ScoreToken(logits, 7);
  EXPECT_NEAR(score.logprob, -std::log(1000.0), 1e-6);
  EXPECT_EQ(score.first_choice, 0);
}

TEST(KlDivergence, IsThatOfTheDefinitionAndOrdersItsArguments) {
  // Sizes with and without a tail.
  for (const size_t size : {2u, 8u, 13u, 257u}) {
    std::vector<float> p(size), q(size), scratch(size);
    for (size_t i = 0; i < size; ++i) {
      p[i] = static_cast<float>(std::sin(1.0 + 3.0 * static_cast<double>(i)));
      q[i] =
          static_cast<float>(5.0 + std::cos(2.0 * static_cast<double>(i)) * 2);
    }
    const auto expected = [&](const std::vector<float>& a,
                              const std::vector<float>& b) {
      double sum_a = 0, sum_b = 0, kl = 0;
      for (size_t i = 0; i < size; ++i) {
        sum_a += std::exp(static_cast<double>(a[i]));
        sum_b += std::exp(static_cast<double>(b[i]));
      }
      for (size_t i = 0; i < size; ++i) {
        const double x = std::exp(static_cast<double>(a[i])) / sum_a;
        const double y = std::exp(static_cast<double>(b[i])) / sum_b;
        kl += x * std::log(x / y);
      }
      return kl;
    };
    // The probabilities are floats, each off by some 2^-23.
    EXPECT_NEAR(KlDivergence(p, q, absl::MakeSpan(scratch)), expected(p, q),
                1e-6);
    EXPECT_NEAR(KlDivergence(q, p, absl::MakeSpan(scratch)), expected(q, p),
                1e-6);
    EXPECT_EQ(KlDivergence(p, p, absl::MakeSpan(scratch)), 0.0);
    EXPECT_GT(std::abs(expected(p, q) - expected(q, p)), 1e-4);
  }
}

TEST(KlDivergence, LogitsThatAreNoNumbersDoNotPassForEqual) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> good = {0, 1, 2};
  for (const float bad : {infinity, std::nanf("")}) {
    std::vector<float> broken = good, scratch(3);
    broken[1] = bad;
    EXPECT_FALSE(
        std::isfinite(KlDivergence(good, broken, absl::MakeSpan(scratch))));
    EXPECT_FALSE(
        std::isfinite(KlDivergence(broken, good, absl::MakeSpan(scratch))));
  }
}

}  // namespace
}  // namespace nibble
