// Measures a model on tasks, alone or against another model.
//
//   absl::StatusOr<std::vector<TaskSpec>> specs =
//       ParseTasks("perplexity:wiki.test.raw,piqa:piqa_dev.jsonl");
//   EvaluationSetOptions set_options;
//   set_options.context = engine->context();
//   absl::StatusOr<EvaluationSet> set =
//       LoadEvaluationSet(*specs, *engine->tokenizer(), set_options);
//   absl::StatusOr<std::vector<TaskResult>> results =
//       Evaluate(*engine, *set, {});
//   results->front().metrics.perplexity;
//
// Against a float model that is measured once: baseline.h.
//
// Many short sequences share one forward pass, and sequences of an item share
// the tokens that they begin with. Neither changes a bit of any result, and nor
// does the number of threads: the engine's logits depend on none of them.
#ifndef NIBBLE_RUNTIME_EVALUATION_EVALUATION_H_
#define NIBBLE_RUNTIME_EVALUATION_EVALUATION_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task_result.h"  // IWYU pragma: export

namespace nibble {

// One result per task. InvalidArgument: sequences longer than the engine's
// context, ids outside its vocabulary, logits that are not numbers.
// ResourceExhausted: no memory for keys and values.
absl::StatusOr<std::vector<TaskResult>> Evaluate(
    Engine& engine, const EvaluationSet& set, const EvaluationOptions& options);

// Both models read each batch in turn, so that the logits of one batch are all
// that is held of either: at most 128 MiB. InvalidArgument also where the
// vocabularies are of different sizes.
absl::StatusOr<std::vector<TaskResult>> EvaluateAgainst(
    Engine& engine, Engine& reference, const EvaluationSet& set,
    const EvaluationOptions& options);

// InvalidArgument where two models do not read text alike: other vocabularies,
// or tokenizers that spell an id differently or differ about the BOS.
absl::Status CheckSameTokenizer(const Engine& engine, const Engine& reference);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_EVALUATION_H_
