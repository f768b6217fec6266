// The tasks of an evaluation as token ids: read and tokenized once, then scored
// by any number of models that share the tokenizer.
//
//   EvaluationSetOptions options;
//   options.context = engine->context();
//   absl::StatusOr<EvaluationSet> set =
//       LoadEvaluationSet(*specs, *engine->tokenizer(), options);
//   for (const EvaluationTask& task : set->tasks) ...
//
// Definitions (docs/evaluation.md has them with their sources): a perplexity
// task is one item per window, with one sequence; LAMBADA an item per line,
// with one sequence; a multiple choice an item per line, with a sequence per
// choice. What is scored of a sequence is its end, from `first` on.
#ifndef NIBBLE_RUNTIME_EVALUATION_EVALUATION_SET_H_
#define NIBBLE_RUNTIME_EVALUATION_EVALUATION_SET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/evaluation/scored_sequence.h"  // IWYU pragma: export
#include "runtime/evaluation/task.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

struct EvaluationItem {
  std::vector<ScoredSequence> sequences;
  // The right one of several sequences.
  int64_t gold = 0;
};

struct EvaluationTask {
  TaskSpec spec;
  std::vector<EvaluationItem> items;
  // Of a perplexity task: how many tokens the whole text has for each of its
  // words, which are what white space separates.
  double tokens_per_word = 0.0;
};

struct EvaluationSet {
  std::vector<EvaluationTask> tasks;
};

struct EvaluationSetOptions {
  // Most tokens that a sequence of the model can hold: longer requests lose
  // their beginning, and windows may not be longer. The least one of several
  // models.
  int64_t context = 0;
  // Tokens of a perplexity window, without the BOS.
  int64_t window = 512;
  // Most items of each task (windows, lines), from its start; 0: all.
  int64_t limit = 0;
};

// Reads the files. Errors name the file, for a line its number, and the field:
// InvalidArgument for what cannot be used, NotFound and so on where a file
// cannot be read.
absl::StatusOr<EvaluationSet> LoadEvaluationSet(
    absl::Span<const TaskSpec> specs, const Tokenizer& tokenizer,
    const EvaluationSetOptions& options);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_EVALUATION_SET_H_
