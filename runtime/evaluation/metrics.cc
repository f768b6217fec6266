#include "runtime/evaluation/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"

namespace nibble {
namespace {

// A mean and its standard error.
struct Mean {
  double value = 0.0;
  double error = std::numeric_limits<double>::quiet_NaN();
};

Mean MeanOf(double count, double sum, double sum_of_squares) {
  Mean mean;
  mean.value = sum / count;
  if (count < 2) return mean;
  const double variance =
      std::max(0.0, sum_of_squares / count - mean.value * mean.value) * count /
      (count - 1);
  mean.error = std::sqrt(variance / count);
  return mean;
}

// Of counts.
Mean ShareOf(int64_t part, int64_t whole) {
  const double sum = static_cast<double>(part);
  return MeanOf(static_cast<double>(whole), sum, sum);
}

// -ln p a token of windows that need not have the same number of them: a ratio
// of sums. Its error is that of the windows' residuals (linearization).
Mean RatioOf(absl::Span<const double> sums, absl::Span<const double> counts) {
  double sum = 0.0, count = 0.0;
  for (size_t i = 0; i < sums.size(); ++i) {
    sum += sums[i];
    count += counts[i];
  }
  Mean ratio;
  ratio.value = sum / count;
  const double n = static_cast<double>(sums.size());
  if (n < 2) return ratio;
  double squares = 0.0;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double residual = sums[i] - ratio.value * counts[i];
    squares += residual * residual;
  }
  ratio.error = std::sqrt(squares * n / (n - 1)) / count;
  return ratio;
}

// Calls fn(item, scores of its sequences) for each item.
template <class Fn>
void ForEachItem(const EvaluationTask& task,
                 absl::Span<const SequenceScore> scores, const Fn& fn) {
  size_t next = 0;
  for (const EvaluationItem& item : task.items) {
    fn(item, scores.subspan(next, item.sequences.size()));
    next += item.sequences.size();
  }
  CHECK_EQ(next, scores.size());
}

// Whether the sequence of greatest log-probability, by character or as it is,
// is the right one.
bool ChoosesRight(const EvaluationItem& item,
                  absl::Span<const SequenceScore> scores, bool by_character) {
  size_t best = 0;
  double best_score = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < scores.size(); ++i) {
    double score = scores[i].sum_logprob;
    if (by_character) {
      score /= static_cast<double>(
          std::max<int64_t>(1, item.sequences[i].characters));
    }
    if (score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return static_cast<int64_t>(best) == item.gold;
}

bool AllGreedy(const SequenceScore& score) {
  return score.greedy_tokens == score.tokens;
}

bool IsRight(TaskKind kind, const EvaluationItem& item,
             absl::Span<const SequenceScore> scores) {
  if (kind == TaskKind::kLambada) return AllGreedy(scores[0]);
  return ChoosesRight(item, scores, /*by_character=*/false);
}

bool HasNll(TaskKind kind) {
  return kind == TaskKind::kPerplexity || kind == TaskKind::kLambada;
}

// Tokens that a sequence counts for in mean_nll.
double NllWeight(TaskKind kind, const SequenceScore& score) {
  return kind == TaskKind::kPerplexity ? static_cast<double>(score.tokens)
                                       : 1.0;
}

Mean NllOf(TaskKind kind, absl::Span<const SequenceScore> scores) {
  std::vector<double> sums, counts;
  for (const SequenceScore& score : scores) {
    sums.push_back(-score.sum_logprob);
    counts.push_back(NllWeight(kind, score));
  }
  return RatioOf(sums, counts);
}

void SetAccuracy(const EvaluationTask& task,
                 absl::Span<const SequenceScore> scores, TaskMetrics& metrics) {
  int64_t right = 0, right_norm = 0, of = metrics.samples;
  if (task.spec.kind == TaskKind::kPerplexity) {
    of = metrics.tokens;
    for (const SequenceScore& score : scores) right += score.greedy_tokens;
  } else {
    ForEachItem(task, scores, [&](const auto& item, auto item_scores) {
      right += IsRight(task.spec.kind, item, item_scores);
      right_norm += ChoosesRight(item, item_scores, /*by_character=*/true);
    });
  }
  const Mean accuracy = ShareOf(right, of);
  metrics.accuracy = accuracy.value;
  metrics.accuracy_stderr = accuracy.error;
  if (task.spec.kind == TaskKind::kHellaSwag ||
      task.spec.kind == TaskKind::kPiqa) {
    const Mean norm = ShareOf(right_norm, of);
    metrics.accuracy_norm = norm.value;
    metrics.accuracy_norm_stderr = norm.error;
  }
}

}  // namespace

TaskMetrics ComputeMetrics(const EvaluationTask& task,
                           absl::Span<const SequenceScore> scores) {
  TaskMetrics metrics;
  metrics.samples = static_cast<int64_t>(task.items.size());
  for (const SequenceScore& score : scores) metrics.tokens += score.tokens;
  SetAccuracy(task, scores, metrics);
  if (!HasNll(task.spec.kind)) return metrics;
  const Mean nll = NllOf(task.spec.kind, scores);
  metrics.mean_nll = nll.value;
  metrics.mean_nll_stderr = nll.error;
  metrics.perplexity = std::exp(nll.value);
  if (task.spec.kind == TaskKind::kPerplexity) {
    metrics.word_perplexity = std::exp(nll.value * task.tokens_per_word);
  }
  return metrics;
}

double MainMetric(TaskKind kind, const TaskMetrics& metrics) {
  return kind == TaskKind::kPerplexity ? metrics.perplexity : metrics.accuracy;
}

bool HigherIsBetter(TaskKind kind) { return kind != TaskKind::kPerplexity; }

double SignTestPValue(int64_t a, int64_t b) {
  const double n = static_cast<double>(a + b);
  double tail = 0.0;
  for (int64_t k = 0; k <= std::min(a, b); ++k) {
    const double x = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(x + 1) -
                     std::lgamma(n - x + 1) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

Comparison CompareScores(const EvaluationTask& task,
                         absl::Span<const SequenceScore> model,
                         absl::Span<const SequenceScore> reference,
                         const DivergenceSums& sums) {
  CHECK_EQ(model.size(), reference.size());
  const TaskKind kind = task.spec.kind;
  Comparison comparison;
  comparison.tokens = sums.tokens;
  comparison.greedy_agreement =
      static_cast<double>(sums.agreed) / static_cast<double>(sums.tokens);
  comparison.kl_tokens = sums.kl_tokens;
  const Mean kl =
      MeanOf(static_cast<double>(sums.kl_tokens), sums.kl, sums.kl_squared);
  comparison.kl_divergence = kl.value;
  comparison.kl_stderr = kl.error;

  int64_t pairs = sums.tokens;
  comparison.right_to_wrong = sums.right_to_wrong;
  comparison.wrong_to_right = sums.wrong_to_right;
  if (kind != TaskKind::kPerplexity) {
    pairs = static_cast<int64_t>(task.items.size());
    comparison.right_to_wrong = comparison.wrong_to_right = 0;
    size_t next = 0;
    ForEachItem(task, model, [&](const auto& item, auto scores) {
      const bool now = IsRight(kind, item, scores);
      const bool before =
          IsRight(kind, item, reference.subspan(next, scores.size()));
      next += scores.size();
      comparison.right_to_wrong += before && !now;
      comparison.wrong_to_right += now && !before;
    });
  }
  const double lost = static_cast<double>(comparison.right_to_wrong);
  const double won = static_cast<double>(comparison.wrong_to_right);
  const Mean difference =
      MeanOf(static_cast<double>(pairs), won - lost, won + lost);
  comparison.accuracy_difference = difference.value;
  comparison.accuracy_difference_stderr = difference.error;
  comparison.flips_p_value =
      SignTestPValue(comparison.right_to_wrong, comparison.wrong_to_right);

  if (!HasNll(kind)) return comparison;
  std::vector<double> differences, counts;
  for (size_t i = 0; i < model.size(); ++i) {
    differences.push_back(reference[i].sum_logprob - model[i].sum_logprob);
    counts.push_back(NllWeight(kind, model[i]));
  }
  const Mean nll = RatioOf(differences, counts);
  comparison.nll_difference = nll.value;
  comparison.nll_difference_stderr = nll.error;
  return comparison;
}

}  // namespace nibble
