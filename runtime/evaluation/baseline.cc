#include "runtime/evaluation/baseline.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/thread_pool.h"
#include "runtime/engine.h"
#include "runtime/evaluation/batch_scorer.h"
#include "runtime/evaluation/comparing.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/score_sheet.h"
#include "runtime/evaluation/task_result.h"
#include "runtime/evaluation/token_score.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

struct Baseline::Records {
  // Room for the distributions of as many of `tokens` as `max_bytes` hold.
  Records(int64_t tokens, int64_t vocabulary, int64_t max_bytes)
      : vocabulary(vocabulary), first_choices(static_cast<size_t>(tokens)) {
    const int64_t row_bytes = vocabulary * static_cast<int64_t>(sizeof(F16));
    const int64_t room = std::max<int64_t>(0, max_bytes) / row_bytes;
    if (room == 0 || tokens == 0) return;
    stride = (tokens + room - 1) / room;
    const int64_t kept = (tokens + stride - 1) / stride;
    distributions = Array<F16>(static_cast<size_t>(kept * vocabulary));
  }

  bool Keeps(int64_t token) const { return stride > 0 && token % stride == 0; }

  // The kept token's logits less their largest.
  absl::Span<F16> Row(int64_t token) {
    return distributions.span().subspan(
        static_cast<size_t>(token / stride * vocabulary),
        static_cast<size_t>(vocabulary));
  }

  // Those of `rows` whose distributions are kept.
  std::vector<size_t> KeptOf(absl::Span<const ScoredRow> rows,
                             const ScoreSheet& sheet) const {
    std::vector<size_t> kept;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (Keeps(sheet.TokenNumber(rows[i]))) kept.push_back(i);
    }
    return kept;
  }

  std::vector<TaskResult> results;
  int64_t vocabulary;
  std::vector<int32_t> first_choices;  // [tokens]
  // Every so many tokens one distribution is kept; 0: none.
  int64_t stride = 0;
  Array<F16> distributions;  // [kept, vocabulary]
};

namespace {

// Floats for each thread of a pool: [threads, columns].
class ThreadRows {
 public:
  ThreadRows(ThreadPool& pool, int64_t columns)
      : columns_(static_cast<size_t>(columns)),
        memory_(reinterpret_cast<float*>(pool.Scratch(
            static_cast<size_t>(pool.threads()) * columns_ * sizeof(float)))) {}

  absl::Span<float> Of(int thread) const {
    return {memory_ + static_cast<size_t>(thread) * columns_, columns_};
  }

 private:
  size_t columns_;
  float* memory_;
};

// The largest logit becomes 0, so that f16 is finest where probability is.
void KeepDistribution(absl::Span<const float> logits, absl::Span<float> scratch,
                      absl::Span<F16> kept) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i) scratch[i] = logits[i] - largest;
  F32ToF16(scratch, kept);
}

}  // namespace

Baseline::Baseline(std::unique_ptr<Records> records)
    : records_(std::move(records)) {}
Baseline::Baseline(Baseline&&) noexcept = default;
Baseline& Baseline::operator=(Baseline&&) noexcept = default;
Baseline::~Baseline() = default;

absl::Span<const TaskResult> Baseline::results() const {
  return records_->results;
}

absl::StatusOr<Baseline> Baseline::Measure(Engine& engine,
                                           const EvaluationSet& set,
                                           const Options& options) {
  ScoreSheet sheet(set);
  auto records = std::make_unique<Records>(sheet.tokens(), engine.vocabulary(),
                                           options.max_bytes);
  std::vector<TokenScore> scores;
  const auto take =
      [&](absl::Span<const ScoredRow> rows,
          absl::Span<const MatrixView<const float>> logits) -> absl::Status {
    ThreadPool& pool = engine.pool();
    ScoreRows(rows, logits[0], pool, scores);
    const absl::Status status = AddScores(rows, scores, sheet);
    if (!status.ok()) return status;
    for (size_t i = 0; i < rows.size(); ++i) {
      records->first_choices[static_cast<size_t>(sheet.TokenNumber(rows[i]))] =
          static_cast<int32_t>(scores[i].first_choice);
    }
    const std::vector<size_t> kept = records->KeptOf(rows, sheet);
    const ThreadRows scratch(pool, records->vocabulary);
    pool.ParallelFor(
        static_cast<int64_t>(kept.size()),
        [&](int64_t begin, int64_t end, int thread) {
          for (int64_t i = begin; i < end; ++i) {
            const ScoredRow& row = rows[kept[static_cast<size_t>(i)]];
            KeepDistribution(logits[0].row_span(row.row), scratch.Of(thread),
                             records->Row(sheet.TokenNumber(row)));
          }
        });
    return absl::OkStatus();
  };
  Engine* const engines[] = {&engine};
  BatchScorer scorer(engines, ScorerOptions(options.evaluation));
  const absl::Status status = scorer.Run(sheet.items(), take);
  if (!status.ok()) return status;
  records->results = Results(sheet);
  return Baseline(std::move(records));
}

absl::StatusOr<std::vector<TaskResult>> EvaluateAgainst(
    Engine& engine, const Baseline& reference, const EvaluationSet& set,
    const EvaluationOptions& options) {
  Baseline::Records& records = *reference.records_;
  ScoreSheet sheet(set);
  if (records.results.size() != set.tasks.size() ||
      static_cast<int64_t>(records.first_choices.size()) != sheet.tokens() ||
      records.vocabulary != engine.vocabulary()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the baseline was measured on ", records.results.size(), " tasks with ",
        records.first_choices.size(), " tokens of a vocabulary of ",
        records.vocabulary, "; here are ", set.tasks.size(), ", ",
        sheet.tokens(), " and ", engine.vocabulary()));
  }
  std::vector<DivergenceSums> sums(set.tasks.size());
  std::vector<TokenScore> scores;
  std::vector<double> divergences;
  const auto take =
      [&](absl::Span<const ScoredRow> rows,
          absl::Span<const MatrixView<const float>> logits) -> absl::Status {
    ThreadPool& pool = engine.pool();
    ScoreRows(rows, logits[0], pool, scores);
    const absl::Status status = AddScores(rows, scores, sheet);
    if (!status.ok()) return status;
    const std::vector<size_t> kept = records.KeptOf(rows, sheet);
    divergences.resize(kept.size());
    const ThreadRows scratch(pool, 2 * records.vocabulary);
    pool.ParallelFor(
        static_cast<int64_t>(kept.size()),
        [&](int64_t begin, int64_t end, int thread) {
          const size_t half = static_cast<size_t>(records.vocabulary);
          const absl::Span<float> floats = scratch.Of(thread).first(half);
          const absl::Span<float> rest = scratch.Of(thread).subspan(half);
          for (int64_t i = begin; i < end; ++i) {
            const ScoredRow& row = rows[kept[static_cast<size_t>(i)]];
            F16ToF32(records.Row(sheet.TokenNumber(row)), floats);
            divergences[static_cast<size_t>(i)] =
                KlDivergence(floats, logits[0].row_span(row.row), rest);
          }
        });
    for (size_t i = 0; i < kept.size(); ++i) {
      AddDivergence(divergences[i], sums[sheet.TaskOf(rows[kept[i]])]);
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t token = sheet.TokenNumber(rows[i]);
      AddChoices(rows[i].token, scores[i].first_choice,
                 records.first_choices[static_cast<size_t>(token)],
                 sums[sheet.TaskOf(rows[i])]);
    }
    return absl::OkStatus();
  };
  Engine* const engines[] = {&engine};
  BatchScorer scorer(engines, ScorerOptions(options));
  const absl::Status status = scorer.Run(sheet.items(), take);
  if (!status.ok()) return status;
  std::vector<TaskResult> results = Results(sheet);
  for (size_t task = 0; task < results.size(); ++task) {
    AddComparison(set.tasks[task], records.results[task].scores, sums[task],
                  results[task]);
  }
  return results;
}

}  // namespace nibble
