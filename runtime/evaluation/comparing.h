// What the forms of an evaluation share: rows of logits scored and compared on
// all threads, and sheets turned into results.
#ifndef NIBBLE_RUNTIME_EVALUATION_COMPARING_H_
#define NIBBLE_RUNTIME_EVALUATION_COMPARING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "runtime/evaluation/batch_scorer.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/score_sheet.h"
#include "runtime/evaluation/task_result.h"
#include "runtime/evaluation/token_score.h"
#include "tensor/view.h"

namespace nibble {

BatchScorer::Options ScorerOptions(const EvaluationOptions& options);

// scores[i] is of rows[i], by logits [rows, vocabulary].
void ScoreRows(absl::Span<const ScoredRow> rows, MatrixView<const float> logits,
               ThreadPool& pool, std::vector<TokenScore>& scores);

// divergences[i] = KL(p || q) of the logits that rows[i] names.
void DivergeRows(absl::Span<const ScoredRow> rows, MatrixView<const float> p,
                 MatrixView<const float> q, ThreadPool& pool,
                 std::vector<double>& divergences);

// The error is ScoreSheet::Add's.
absl::Status AddScores(absl::Span<const ScoredRow> rows,
                       absl::Span<const TokenScore> scores, ScoreSheet& sheet);

// One token's first choices, by the model and by the reference.
void AddChoices(int64_t token, int64_t choice, int64_t reference_choice,
                DivergenceSums& sums);
void AddDivergence(double kl, DivergenceSums& sums);

// One per task.
std::vector<TaskResult> Results(const ScoreSheet& sheet);

void AddComparison(const EvaluationTask& task,
                   absl::Span<const SequenceScore> reference,
                   const DivergenceSums& sums, TaskResult& result);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_COMPARING_H_
