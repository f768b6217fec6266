#include "runtime/evaluation/evaluation.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "runtime/engine.h"
#include "runtime/evaluation/batch_scorer.h"
#include "runtime/evaluation/comparing.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/score_sheet.h"
#include "runtime/evaluation/token_score.h"
#include "tensor/view.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

absl::Status CheckVocabularies(const Engine& engine, const Engine& reference) {
  if (engine.vocabulary() == reference.vocabulary()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      engine.path(), ": has a vocabulary of ", engine.vocabulary(), ", and ",
      reference.path(), " one of ", reference.vocabulary(),
      ": their distributions cannot be compared"));
}

}  // namespace

absl::StatusOr<std::vector<TaskResult>> Evaluate(
    Engine& engine, const EvaluationSet& set,
    const EvaluationOptions& options) {
  ScoreSheet sheet(set);
  std::vector<TokenScore> scores;
  const auto take = [&](absl::Span<const ScoredRow> rows,
                        absl::Span<const MatrixView<const float>> logits) {
    ScoreRows(rows, logits[0], engine.pool(), scores);
    return AddScores(rows, scores, sheet);
  };
  Engine* const engines[] = {&engine};
  BatchScorer scorer(engines, ScorerOptions(options));
  const absl::Status status = scorer.Run(sheet.items(), take);
  if (!status.ok()) return status;
  return Results(sheet);
}

absl::StatusOr<std::vector<TaskResult>> EvaluateAgainst(
    Engine& engine, Engine& reference, const EvaluationSet& set,
    const EvaluationOptions& options) {
  absl::Status status = CheckVocabularies(engine, reference);
  if (!status.ok()) return status;
  ScoreSheet sheet(set);
  ScoreSheet reference_sheet(set);
  std::vector<DivergenceSums> sums(set.tasks.size());
  std::vector<TokenScore> scores, reference_scores;
  std::vector<double> divergences;
  const auto take =
      [&](absl::Span<const ScoredRow> rows,
          absl::Span<const MatrixView<const float>> logits) -> absl::Status {
    ThreadPool& pool = engine.pool();
    ScoreRows(rows, logits[0], pool, scores);
    ScoreRows(rows, logits[1], pool, reference_scores);
    absl::Status added = AddScores(rows, scores, sheet);
    if (added.ok()) added = AddScores(rows, reference_scores, reference_sheet);
    if (!added.ok()) return added;
    DivergeRows(rows, logits[1], logits[0], pool, divergences);
    for (size_t i = 0; i < rows.size(); ++i) {
      DivergenceSums& sum = sums[sheet.TaskOf(rows[i])];
      AddChoices(rows[i].token, scores[i].first_choice,
                 reference_scores[i].first_choice, sum);
      AddDivergence(divergences[i], sum);
    }
    return absl::OkStatus();
  };
  Engine* const engines[] = {&engine, &reference};
  BatchScorer scorer(engines, ScorerOptions(options));
  status = scorer.Run(sheet.items(), take);
  if (!status.ok()) return status;
  std::vector<TaskResult> results = Results(sheet);
  for (size_t task = 0; task < results.size(); ++task) {
    AddComparison(set.tasks[task], reference_sheet.Scores(task), sums[task],
                  results[task]);
  }
  return results;
}

absl::Status CheckSameTokenizer(const Engine& engine, const Engine& reference) {
  const absl::Status status = CheckVocabularies(engine, reference);
  if (!status.ok()) return status;
  const Tokenizer* const a = engine.tokenizer();
  const Tokenizer* const b = reference.tokenizer();
  const auto differ = [&](absl::string_view how) {
    return absl::InvalidArgumentError(
        absl::StrCat(engine.path(), " and ", reference.path(),
                     " do not read text alike: ", how));
  };
  if (a == nullptr || b == nullptr) {
    return differ("one of them has no tokenizer");
  }
  if (a->adds_bos() != b->adds_bos() ||
      (a->adds_bos() && a->bos_id() != b->bos_id())) {
    return differ("their tokenizers put different tokens before a text");
  }
  const int64_t size = a->vocabulary_size();
  if (size != b->vocabulary_size()) {
    return differ(absl::StrCat("their tokenizers have ", size, " and ",
                               b->vocabulary_size(), " tokens"));
  }
  for (int32_t id = 0; id < size; ++id) {
    if (a->TokenText(id) == b->TokenText(id)) continue;
    return differ(
        absl::StrCat("their tokenizers spell token ", id, " differently"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
