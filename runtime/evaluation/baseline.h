// A reference model's results, kept, so that many models can be measured
// against it while it runs only once.
//
//   absl::StatusOr<Baseline> baseline = Baseline::Measure(*engine, *set, {});
//   engine.reset();                                  // no longer needed
//   absl::StatusOr<std::vector<TaskResult>> trial =
//       EvaluateAgainst(*other, *baseline, *set, {});
//   trial->front().comparison->kl_divergence;
#ifndef NIBBLE_RUNTIME_EVALUATION_BASELINE_H_
#define NIBBLE_RUNTIME_EVALUATION_BASELINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/engine.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/task_result.h"

namespace nibble {

// What a reference model says about every scored token of a set: its scores,
// its first choice, and its distribution (f16, two bytes per entry of the
// vocabulary), the latter of as many tokens as memory is granted for, taken at
// even distances.
class Baseline {
 public:
  struct Options {
    EvaluationOptions evaluation;
    // Most bytes for distributions. 512 MiB hold 8,192 tokens of a vocabulary
    // of 32,000: the mean divergence of INT4 weights is then known to 1 or 2 %.
    int64_t max_bytes = int64_t{512} << 20;
  };

  // Errors as Evaluate's.
  static absl::StatusOr<Baseline> Measure(Engine& engine,
                                          const EvaluationSet& set,
                                          const Options& options);

  Baseline(Baseline&&) noexcept;
  Baseline& operator=(Baseline&&) noexcept;
  ~Baseline();

  // One per task.
  absl::Span<const TaskResult> results() const;

 private:
  friend absl::StatusOr<std::vector<TaskResult>> EvaluateAgainst(
      Engine& engine, const Baseline& reference, const EvaluationSet& set,
      const EvaluationOptions& options);
  struct Records;
  explicit Baseline(std::unique_ptr<Records> records);

  std::unique_ptr<Records> records_;
};

// `set` is the one that the baseline was measured on; another is an
// InvalidArgument error where it shows (numbers of tasks or tokens).
absl::StatusOr<std::vector<TaskResult>> EvaluateAgainst(
    Engine& engine, const Baseline& reference, const EvaluationSet& set,
    const EvaluationOptions& options);

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_BASELINE_H_
