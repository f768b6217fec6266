#include "runtime/evaluation/comparing.h"

#include <cstddef>
#include <cstdint>
#include <utility>
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

BatchScorer::Options ScorerOptions(const EvaluationOptions& options) {
  BatchScorer::Options scorer;
  scorer.batch_tokens = options.batch_tokens;
  scorer.share_prefixes = options.share_prefixes;
  scorer.progress = options.progress;
  scorer.cancelled = options.cancelled;
  return scorer;
}

void ScoreRows(absl::Span<const ScoredRow> rows, MatrixView<const float> logits,
               ThreadPool& pool, std::vector<TokenScore>& scores) {
  scores.resize(rows.size());
  pool.ParallelFor(static_cast<int64_t>(rows.size()),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t i = begin; i < end; ++i) {
                       const ScoredRow& row = rows[static_cast<size_t>(i)];
                       scores[static_cast<size_t>(i)] =
                           ScoreToken(logits.row_span(row.row), row.token);
                     }
                   });
}

void DivergeRows(absl::Span<const ScoredRow> rows, MatrixView<const float> p,
                 MatrixView<const float> q, ThreadPool& pool,
                 std::vector<double>& divergences) {
  divergences.resize(rows.size());
  const size_t columns = static_cast<size_t>(p.cols);
  float* const scratch = reinterpret_cast<float*>(pool.Scratch(
      static_cast<size_t>(pool.threads()) * columns * sizeof(float)));
  pool.ParallelFor(static_cast<int64_t>(rows.size()),
                   [&](int64_t begin, int64_t end, int thread) {
                     const absl::Span<float> own(
                         scratch + static_cast<size_t>(thread) * columns,
                         columns);
                     for (int64_t i = begin; i < end; ++i) {
                       const int64_t row = rows[static_cast<size_t>(i)].row;
                       divergences[static_cast<size_t>(i)] =
                           KlDivergence(p.row_span(row), q.row_span(row), own);
                     }
                   });
}

absl::Status AddScores(absl::Span<const ScoredRow> rows,
                       absl::Span<const TokenScore> scores, ScoreSheet& sheet) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const absl::Status status = sheet.Add(rows[i], scores[i]);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void AddChoices(int64_t token, int64_t choice, int64_t reference_choice,
                DivergenceSums& sums) {
  const bool right = choice == token;
  const bool was_right = reference_choice == token;
  sums.tokens += 1;
  sums.agreed += choice == reference_choice;
  sums.right_to_wrong += was_right && !right;
  sums.wrong_to_right += right && !was_right;
}

void AddDivergence(double kl, DivergenceSums& sums) {
  sums.kl_tokens += 1;
  sums.kl += kl;
  sums.kl_squared += kl * kl;
}

std::vector<TaskResult> Results(const ScoreSheet& sheet) {
  std::vector<TaskResult> results;
  for (size_t i = 0; i < sheet.set().tasks.size(); ++i) {
    const EvaluationTask& task = sheet.set().tasks[i];
    const absl::Span<const SequenceScore> scores = sheet.Scores(i);
    TaskResult result;
    result.spec = task.spec;
    result.metrics = ComputeMetrics(task, scores);
    result.scores.assign(scores.begin(), scores.end());
    results.push_back(std::move(result));
  }
  return results;
}

void AddComparison(const EvaluationTask& task,
                   absl::Span<const SequenceScore> reference,
                   const DivergenceSums& sums, TaskResult& result) {
  result.reference = ComputeMetrics(task, reference);
  result.comparison = CompareScores(task, result.scores, reference, sums);
}

}  // namespace nibble
