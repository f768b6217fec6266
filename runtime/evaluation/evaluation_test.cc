#include "runtime/evaluation/evaluation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "runtime/evaluation/bigram_model.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/evaluation_testing.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "runtime/score.h"
#include "tensor/dtype.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

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
using ::nibble::testing::TinyModelOptions;
using ::nibble::testing::Uniform;
using ::nibble::testing::Wavy;
using ::nibble::testing::WriteTinyLlama;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// Each sequence by itself, with runtime/score.h.
std::vector<SequenceScore> SingleScores(Engine& engine,
                                        const EvaluationSet& set) {
  std::vector<SequenceScore> scores;
  for (const EvaluationTask& task : set.tasks) {
    for (const EvaluationItem& item : task.items) {
      for (const ScoredSequence& sequence : item.sequences) {
        ScoreOptions options;
        options.first = sequence.first;
        const auto single = ScoreTokens(engine, sequence.tokens, options);
        EXPECT_THAT(single, IsOk());
        SequenceScore score;
        score.sum_logprob = single->sum_logprob;
        score.tokens = static_cast<int64_t>(single->logprobs.size());
        score.greedy_tokens =
            std::count(single->greedy.begin(), single->greedy.end(), 1);
        scores.push_back(score);
      }
    }
  }
  return scores;
}

TEST(Evaluate, UniformModelGivesEveryTokenTheSameShare) {
  const auto engine = BigramEngine(Uniform, 1);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                              Evaluate(*engine, set, {}));
  ASSERT_EQ(results.size(), set.tasks.size());
  const double v = static_cast<double>(kBigramVocabulary);
  EXPECT_NEAR(results[0].metrics.perplexity, v, 1e-9 * v);
  for (const TaskResult& result : results) {
    for (const SequenceScore& score : result.scores) {
      // exp(ll) = V^-n.
      EXPECT_NEAR(std::exp(score.sum_logprob) *
                      std::pow(v, static_cast<double>(score.tokens)),
                  1.0, 1e-6);
    }
  }
}

TEST(Evaluate, ScoresAreTheModelsKnownProbabilities) {
  const BigramLogits logits = Wavy;
  const auto engine = BigramEngine(logits, 2);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                              Evaluate(*engine, set, {}));
  for (size_t task = 0; task < set.tasks.size(); ++task) {
    size_t next = 0;
    for (const EvaluationItem& item : set.tasks[task].items) {
      for (const ScoredSequence& sequence : item.sequences) {
        double expected = 0.0;
        int64_t greedy = 0;
        for (size_t i = static_cast<size_t>(sequence.first);
             i < sequence.tokens.size(); ++i) {
          const int32_t token = sequence.tokens[i];
          const int32_t last = sequence.tokens[i - 1];
          expected += BigramLogProb(logits, token, last);
          bool best = true;
          for (int32_t v = 0; v < kBigramVocabulary; ++v) {
            best &= Wavy(v, nibble::testing::BigramClass(last)) <=
                    Wavy(token, nibble::testing::BigramClass(last));
          }
          greedy += best;
        }
        const SequenceScore& score = results[task].scores[next++];
        EXPECT_EQ(score.tokens, sequence.scored());
        EXPECT_EQ(score.greedy_tokens, greedy);
        // Logits below 4, each off by a few 2^-24 of that.
        EXPECT_NEAR(score.sum_logprob, expected,
                    2e-6 * static_cast<double>(score.tokens));
      }
    }
  }
}

struct Setting {
  std::optional<DType> kv_cache;
  std::string extra_config;
};

class BatchTest : public ::testing::TestWithParam<Setting> {
 protected:
  std::unique_ptr<Engine> Open(int threads) {
    const std::string folder = ::testing::TempDir() + "/evaluation_tiny";
    TinyModelOptions model;
    model.extra_config = GetParam().extra_config;
    EXPECT_THAT(WriteTinyLlama(folder, model), IsOk());
    EngineOptions options;
    options.model_path = folder;
    options.threads = threads;
    options.kv_cache = GetParam().kv_cache;
    auto engine = Engine::Open(options);
    EXPECT_THAT(engine, IsOk());
    return *std::move(engine);
  }
};

TEST_P(BatchTest, BatchesAndSharedPrefixesGiveTheBitsOfSingleSequences) {
  const EvaluationSet set = RandomSet(97);
  const std::vector<SequenceScore> expected = SingleScores(*Open(1), set);
  for (const int threads : {1, 2}) {
    const auto engine = Open(threads);
    for (const int64_t batch_tokens : {1, 7, 64, 1000}) {
      for (const bool share : {false, true}) {
        EvaluationOptions options;
        options.batch_tokens = batch_tokens;
        options.share_prefixes = share;
        NIBBLE_ASSERT_OK_AND_ASSIGN(const std::vector<TaskResult> results,
                                    Evaluate(*engine, set, options));
        ExpectSameBits(ScoresOf(results), expected);
      }
    }
    EXPECT_EQ(engine->kv_pool().blocks_in_use(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, BatchTest,
    ::testing::Values(
        Setting{DType::kF32, ""}, Setting{DType::kI8, ""},
        // Where angles depend on the length, beginnings are not shared.
        Setting{DType::kF32,
                R"("rope_scaling": {"type": "dynamic", "factor": 2.0})"
                R"(, "max_position_embeddings": 128)"}));

TEST(Evaluate, SharedPrefixesAreReadOnce) {
  const auto engine = BigramEngine(Wavy, 1);
  EvaluationSet set;
  set.tasks.emplace_back();
  set.tasks[0].spec.kind = TaskKind::kPiqa;
  EvaluationItem item;
  for (int i = 0; i < 4; ++i) {
    ScoredSequence sequence;
    sequence.tokens = {1, 2, 3, 4, 5, 6, 7, 8, 10 + i, 20 + i};
    sequence.first = 8;
    item.sequences.push_back(sequence);
  }
  set.tasks[0].items.push_back(item);
  int64_t read = 0;
  EvaluationOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    read = done;
    EXPECT_LE(done, total);
  };
  ASSERT_THAT(Evaluate(*engine, set, options), IsOk());
  EXPECT_EQ(read, 8 + 4 * 1);
  options.share_prefixes = false;
  ASSERT_THAT(Evaluate(*engine, set, options), IsOk());
  EXPECT_EQ(read, 4 * 9);
}

TEST(Evaluate, StopsWhereItIsCancelled) {
  const auto engine = BigramEngine(Wavy, 1);
  const EvaluationSet set = RandomSet(kBigramVocabulary);
  EvaluationOptions options;
  options.batch_tokens = 16;
  int64_t passes = 0;
  options.cancelled = [&] { return ++passes > 3; };
  EXPECT_THAT(Evaluate(*engine, set, options).status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  EXPECT_EQ(passes, 4);
  EXPECT_EQ(engine->kv_pool().blocks_in_use(), 0);
}

TEST(Evaluate, NamesTheTaskWhereLogitsAreNoNumbers) {
  // The weights are floats, and the logits no longer.
  const auto engine = BigramEngine([](int64_t, int64_t) { return 1.5e39; }, 1);
  EvaluationSet set = RandomSet(kBigramVocabulary);
  set.tasks.erase(set.tasks.begin());
  EXPECT_THAT(
      Evaluate(*engine, set, {}).status(),
      StatusIs(kInvalid, AllOf(HasSubstr("piqa"), HasSubstr("not numbers"))));
}

TEST(Evaluate, RefusesTokensAndLengthsThatTheModelDoesNotHave) {
  const auto engine = BigramEngine(Wavy, 1);
  EvaluationSet set = RandomSet(kBigramVocabulary);
  set.tasks[0].items[0].sequences[0].tokens[2] = kBigramVocabulary;
  EXPECT_THAT(Evaluate(*engine, set, {}).status(),
              StatusIs(kInvalid, HasSubstr("vocabulary")));
  set.tasks[0].items[0].sequences[0].tokens.assign(
      static_cast<size_t>(engine->context() + 2), 1);
  EXPECT_THAT(Evaluate(*engine, set, {}).status(),
              StatusIs(kInvalid, HasSubstr("context")));
}

}  // namespace
}  // namespace nibble
