// How an evaluation is run and what it yields; see evaluation.h.
#ifndef NIBBLE_RUNTIME_EVALUATION_TASK_RESULT_H_
#define NIBBLE_RUNTIME_EVALUATION_TASK_RESULT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "runtime/engine_options.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"

namespace nibble {

struct EvaluationOptions {
  // Called with the tokens read and those there are, over all tasks.
  ProgressCallback progress;
  // Asked between forward passes: true ends the call with a Cancelled error.
  std::function<bool()> cancelled;
  // Tokens of a forward pass; 0: the engine's prefill chunk.
  int64_t batch_tokens = 0;
  // Whether the tokens that an item's sequences begin with are read once.
  bool share_prefixes = true;
};

struct TaskResult {
  TaskSpec spec;
  TaskMetrics metrics;
  // Of every sequence, item by item.
  std::vector<SequenceScore> scores;
  // Set where there was a reference.
  std::optional<TaskMetrics> reference;
  std::optional<Comparison> comparison;
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_TASK_RESULT_H_
