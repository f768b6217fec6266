// Figures of a task from the scores of its sequences, of one model or of two.
//
//   TaskMetrics metrics = ComputeMetrics(task, scores);
//   double score = MainMetric(task.spec.kind, metrics);
//
// Standard errors are those of lm-evaluation-harness: the sample deviation
// (over n - 1) by the root of n; NaN for fewer than two samples.
#ifndef NIBBLE_RUNTIME_EVALUATION_METRICS_H_
#define NIBBLE_RUNTIME_EVALUATION_METRICS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task.h"

namespace nibble {

// Of one sequence's scored tokens.
struct SequenceScore {
  double sum_logprob = 0.0;   // natural logarithm
  int64_t tokens = 0;         // scored
  int64_t greedy_tokens = 0;  // those that are the model's first choice
};

// Fields that a kind of task has no use for stay 0.
struct TaskMetrics {
  int64_t samples = 0;  // items: windows or lines
  int64_t tokens = 0;   // scored, of all sequences

  // Perplexity: share of the tokens that are the model's first choice. LAMBADA:
  // of words whose every token is. Choices: of items whose likeliest sequence
  // is the right one (the first of equals).
  double accuracy = 0.0;
  double accuracy_stderr = 0.0;
  // HellaSwag and PIQA: likeliest per character.
  double accuracy_norm = 0.0;
  double accuracy_norm_stderr = 0.0;

  // Perplexity: -ln p a token. LAMBADA: -ln p a word. `perplexity` is e to it.
  double mean_nll = 0.0;
  double mean_nll_stderr = 0.0;  // over samples
  double perplexity = 0.0;
  // Perplexity: e to mean_nll * tokens a word.
  double word_perplexity = 0.0;
};

// `scores` are of all sequences of `task`, item by item.
TaskMetrics ComputeMetrics(const EvaluationTask& task,
                           absl::Span<const SequenceScore> scores);

// The figure that a task is known by: perplexity of kPerplexity, which is to be
// low; accuracy of the others, which is to be high (and is what published
// means of these tasks average).
double MainMetric(TaskKind kind, const TaskMetrics& metrics);
bool HigherIsBetter(TaskKind kind);

// Sums over the scored tokens of two models, token by token.
struct DivergenceSums {
  int64_t tokens = 0;  // scored by both
  int64_t agreed = 0;  // tokens where both have the same first choice
  // Tokens where only one has the right first choice.
  int64_t right_to_wrong = 0;
  int64_t wrong_to_right = 0;
  // Tokens whose whole distributions were compared: all, or a sample.
  int64_t kl_tokens = 0;
  double kl = 0.0;          // sum of KL(reference || model), nats
  double kl_squared = 0.0;  // sum of its squares
};

// A model against a reference, over the same items.
struct Comparison {
  int64_t tokens = 0;
  double greedy_agreement = 0.0;  // share of tokens
  int64_t kl_tokens = 0;
  double kl_divergence = 0.0;  // mean KL(reference || model), nats a token
  double kl_stderr = 0.0;

  // Items (perplexity: tokens) that the reference had right and the model has
  // wrong, and the reverse, by `accuracy`.
  int64_t right_to_wrong = 0;
  int64_t wrong_to_right = 0;
  // Model minus reference, and the standard error of the paired difference.
  double accuracy_difference = 0.0;
  double accuracy_difference_stderr = 0.0;
  // Two-sided exact sign test (McNemar's): how likely so uneven flips are where
  // neither model is better. 1 without flips.
  double flips_p_value = 1.0;
  // Model minus reference of mean_nll (perplexity and LAMBADA), paired over
  // samples.
  double nll_difference = 0.0;
  double nll_difference_stderr = 0.0;
};

Comparison CompareScores(const EvaluationTask& task,
                         absl::Span<const SequenceScore> model,
                         absl::Span<const SequenceScore> reference,
                         const DivergenceSums& sums);

// 2 P(X <= min(a, b)) for X ~ Binomial(a + b, 1/2), at most 1.
double SignTestPValue(int64_t a, int64_t b);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_METRICS_H_
