#include "runtime/evaluation/score_sheet.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/evaluation/batch_scorer.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/token_score.h"

namespace nibble {

ScoreSheet::ScoreSheet(const EvaluationSet& set) : set_(&set) {
  first_token_.push_back(0);
  first_sequence_.push_back(0);
  for (size_t task = 0; task < set.tasks.size(); ++task) {
    for (const EvaluationItem& item : set.tasks[task].items) {
      items_.push_back(&item);
      for (const ScoredSequence& sequence : item.sequences) {
        task_of_.push_back(task);
        first_token_.push_back(first_token_.back() + sequence.scored());
      }
    }
    first_sequence_.push_back(task_of_.size());
  }
  scores_.resize(task_of_.size());
}

absl::Status ScoreSheet::Add(const ScoredRow& row, const TokenScore& score) {
  if (!std::isfinite(score.logprob)) {
    return absl::InvalidArgumentError(absl::StrCat(
        set_->tasks[TaskOf(row)].spec.name,
        ": the model's logits are not numbers (a log-probability is ",
        score.logprob, "): its weights are damaged or out of range"));
  }
  SequenceScore& sum = scores_[static_cast<size_t>(row.sequence)];
  sum.sum_logprob += score.logprob;
  sum.tokens += 1;
  sum.greedy_tokens += score.first_choice == row.token;
  return absl::OkStatus();
}

}  // namespace nibble
