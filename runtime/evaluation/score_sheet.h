// The scores of an evaluation as they come in: sequences and scored tokens of
// all tasks, numbered through.
//
//   ScoreSheet sheet(set);
//   sheet.Add(row, ScoreToken(logits, row.token));
//   TaskMetrics metrics = ComputeMetrics(set.tasks[0], sheet.Scores(0));
#ifndef NIBBLE_RUNTIME_EVALUATION_SCORE_SHEET_H_
#define NIBBLE_RUNTIME_EVALUATION_SCORE_SHEET_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/evaluation/batch_scorer.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/token_score.h"

namespace nibble {

class ScoreSheet {
 public:
  // `set` must outlive the sheet.
  explicit ScoreSheet(const EvaluationSet& set);

  const EvaluationSet& set() const { return *set_; }
  // All items of all tasks, in order.
  absl::Span<const EvaluationItem* const> items() const { return items_; }
  // Scored tokens of all sequences.
  int64_t tokens() const { return first_token_.back(); }
  // The number of a row's token among them.
  int64_t TokenNumber(const ScoredRow& row) const {
    return first_token_[static_cast<size_t>(row.sequence)] + row.index;
  }
  // The task that a row belongs to.
  size_t TaskOf(const ScoredRow& row) const {
    return task_of_[static_cast<size_t>(row.sequence)];
  }

  // InvalidArgument, naming the task: a log-probability that is no number.
  absl::Status Add(const ScoredRow& row, const TokenScore& score);

  // Of a task's sequences.
  absl::Span<const SequenceScore> Scores(size_t task) const {
    return absl::MakeConstSpan(scores_).subspan(
        first_sequence_[task],
        first_sequence_[task + 1] - first_sequence_[task]);
  }

 private:
  const EvaluationSet* set_;
  std::vector<const EvaluationItem*> items_;
  std::vector<size_t> first_sequence_;  // [tasks + 1]
  std::vector<size_t> task_of_;         // [sequences]
  std::vector<int64_t> first_token_;    // [sequences + 1]
  std::vector<SequenceScore> scores_;   // [sequences]
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_SCORE_SHEET_H_
