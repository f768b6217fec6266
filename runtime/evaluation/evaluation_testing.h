// Random items for models, and what tests compare.
#ifndef NIBBLE_RUNTIME_EVALUATION_EVALUATION_TESTING_H_
#define NIBBLE_RUNTIME_EVALUATION_EVALUATION_TESTING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task_result.h"

namespace nibble::testing {

// Every kind of task, five items each, with up to 80 tokens: windows; single
// and several sequences; a context of one token; sequences that share nothing.
EvaluationSet RandomSet(int64_t vocabulary);

// Of all tasks.
std::vector<SequenceScore> ScoresOf(const std::vector<TaskResult>& results);

void ExpectSameBits(absl::Span<const SequenceScore> a,
                    absl::Span<const SequenceScore> b);

// Logits for BigramEngine: all equal; known ones; and others near them.
double Uniform(int64_t token, int64_t of_class);
double Wavy(int64_t token, int64_t of_class);
double Wavier(int64_t token, int64_t of_class);

}  // namespace nibble::testing

#endif  // NIBBLE_RUNTIME_EVALUATION_EVALUATION_TESTING_H_
