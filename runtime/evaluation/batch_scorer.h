// Reads the sequences of many items in forward passes that are worth the
// weights they read, and hands out the logits by which tokens are scored.
//
//   std::vector<Engine*> engines = {&model, &reference};
//   BatchScorer scorer(engines, BatchScorer::Options());
//   absl::Status status = scorer.Run(items, [&](auto rows, auto logits) {
//     for (const ScoredRow& row : rows) {
//       Compare(logits[0].row_span(row.row), logits[1].row_span(row.row));
//     }
//     return absl::OkStatus();
//   });
//
// The sequences of an item begin alike: the tokens that all of them share
// before the first scored one are read once, into a sequence that the others
// fork from. Items are read in packs: first the shared beginnings of all items
// of a pack, then all endings. A pass takes tokens of any number of sequences;
// a long sequence goes over several.
#ifndef NIBBLE_RUNTIME_EVALUATION_BATCH_SCORER_H_
#define NIBBLE_RUNTIME_EVALUATION_BATCH_SCORER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/sequence.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// A scored token and where the logits stand that are to predict it.
struct ScoredRow {
  int64_t row = 0;       // of the logits; several tokens may share one
  int64_t sequence = 0;  // counted over all items
  int64_t index = 0;     // among the sequence's scored tokens
  int32_t token = 0;
};

class BatchScorer {
 public:
  struct Options {
    int64_t batch_tokens = 0;  // of a pass; 0: the first engine's prefill chunk
    bool share_prefixes = true;
    ProgressCallback progress;  // of tokens, shared ones counted once
    std::function<bool()> cancelled;
  };

  // The rows of one pass and each engine's logits, [rows, vocabulary]. The
  // tokens of one sequence come in order. A status other than OK ends the run.
  using Sink = absl::FunctionRef<absl::Status(
      absl::Span<const ScoredRow> rows,
      absl::Span<const MatrixView<const float>> logits)>;

  // Engines of one size of vocabulary, all of which read the same tokens, one
  // after another in each pass. REQUIRES: at least one.
  BatchScorer(absl::Span<Engine* const> engines, const Options& options);

  absl::Status Run(absl::Span<const EvaluationItem* const> items, Sink sink);

 private:
  // Consecutive tokens of one sequence of an item, to be read.
  struct Job {
    const EvaluationItem* item = nullptr;
    int64_t first_sequence = 0;  // of the item, counted over all items
    size_t sequence = 0;         // of the item: whose tokens are read
    bool shared = false;         // the beginning of all sequences of the item
    int64_t position = 0;        // of the next token
    int64_t end = 0;
    std::vector<std::unique_ptr<Sequence>> states;  // one per engine

    absl::Span<const int32_t> tokens() const {
      return item->sequences[sequence].tokens;
    }
  };
  // Tokens of one job in one pass.
  struct Slice {
    Job* job = nullptr;
    int64_t count = 0;
    int64_t rows = 0;  // logits wanted of the last of them
  };

  int64_t SharedTokens(const EvaluationItem& item) const;
  int64_t TokensToRead(const EvaluationItem& item) const;
  int64_t BlocksOf(const EvaluationItem& item) const;
  size_t PackEnd(absl::Span<const EvaluationItem* const> items,
                 size_t begin) const;
  absl::Status RunPack(absl::Span<const EvaluationItem* const> items,
                       int64_t first_sequence, Sink sink);
  absl::Status StartStates(const Job* prefix, Job& job);
  absl::Status RunJobs(std::vector<Job>& jobs, Sink sink);
  static int64_t FirstRow(const Job& job);
  std::vector<Slice> NextPass(std::vector<Job>& jobs, size_t& next) const;
  absl::Status RunPass(absl::Span<const Slice> pass, Sink sink);
  static void AddRows(const Slice& slice, int64_t first_row,
                      std::vector<ScoredRow>& rows);

  std::vector<Engine*> engines_;
  Options options_;
  int64_t max_rows_;  // of logits in a pass
  bool share_prefixes_;
  std::vector<Array<float>> logits_;  // of each engine: [max_rows_, vocabulary]
  int64_t done_ = 0;
  int64_t total_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_BATCH_SCORER_H_
