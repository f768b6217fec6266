#include "runtime/evaluation/evaluation_testing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "runtime/evaluation/task_result.h"
#include "testing/random_tensor.h"

namespace nibble::testing {
namespace {

std::vector<int32_t> Tokens(RandomValues& random, int64_t count,
                            int64_t vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random.Below(vocabulary));
  }
  return tokens;
}

// An item of `choices` sequences that share their context, and some of them a
// beginning of the scored end too.
EvaluationItem Item(RandomValues& random, int64_t choices, int64_t context,
                    int64_t vocabulary) {
  const std::vector<int32_t> shared = Tokens(random, context, vocabulary);
  EvaluationItem item;
  item.gold = random.Below(choices);
  for (int64_t i = 0; i < choices; ++i) {
    ScoredSequence sequence;
    sequence.tokens = shared;
    sequence.first = context - (choices > 1 ? random.Below(2) : 0);
    sequence.first = std::max<int64_t>(1, sequence.first);
    const std::vector<int32_t> end =
        Tokens(random, 1 + random.Below(9), vocabulary);
    sequence.tokens.insert(sequence.tokens.end(), end.begin(), end.end());
    sequence.characters = 1 + random.Below(20);
    item.sequences.push_back(sequence);
  }
  return item;
}

}  // namespace

EvaluationSet RandomSet(int64_t vocabulary) {
  RandomValues random(5);
  EvaluationSet set;
  for (const TaskKind kind : {TaskKind::kPerplexity, TaskKind::kLambada,
                              TaskKind::kPiqa, TaskKind::kWinoGrande}) {
    EvaluationTask task;
    task.spec = {kind, "", std::string(TaskKindName(kind))};
    task.tokens_per_word = 1.0;
    for (const int64_t length : {70, 3, 30, 1, 12}) {
      if (kind == TaskKind::kPerplexity) {
        task.items.push_back(Item(random, 1, 1, vocabulary));
        ScoredSequence& window = task.items.back().sequences[0];
        window.tokens = Tokens(random, length + 1, vocabulary);
      } else if (kind == TaskKind::kLambada) {
        task.items.push_back(Item(random, 1, length, vocabulary));
      } else if (kind == TaskKind::kPiqa) {
        task.items.push_back(Item(random, 2 + length % 3, length, vocabulary));
      } else {
        task.items.push_back(Item(random, 2, length, vocabulary));
        task.items.back().sequences[1].tokens[0] =
            (task.items.back().sequences[0].tokens[0] + 1) % 90;
      }
    }
    set.tasks.push_back(task);
  }
  return set;
}

std::vector<SequenceScore> ScoresOf(const std::vector<TaskResult>& results) {
  std::vector<SequenceScore> scores;
  for (const TaskResult& result : results) {
    scores.insert(scores.end(), result.scores.begin(), result.scores.end());
  }
  return scores;
}

void ExpectSameBits(absl::Span<const SequenceScore> a,
                    absl::Span<const SequenceScore> b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].sum_logprob, b[i].sum_logprob) << i;
    EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
    EXPECT_EQ(a[i].greedy_tokens, b[i].greedy_tokens) << i;
  }
}

double Uniform(int64_t, int64_t) { return 0.0; }
double Wavy(int64_t token, int64_t c) {
  return 3.0 * std::sin(static_cast<double>(7 * token + 3 * c));
}
double Wavier(int64_t token, int64_t c) {
  return Wavy(token, c) + 0.4 * std::cos(static_cast<double>(token * c));
}

}  // namespace nibble::testing
