// The search for a recipe that loses no more than is tolerated.
//
//   std::vector<Recipe> recipes = RecipeLattice(LatticeOptions());
//   RecipeSearchOptions options;
//   options.tolerance = 0.01;
//   absl::StatusOr<SearchResult> result =
//       SearchRecipe(recipes, evaluator, options);
//   if (!result.ok()) return result.status();
//   if (result->within_tolerance)
//   Write(result->trials[*result->chosen].recipe);
//
// Recipes are tried in the order given. A trial quantizes, compares the model
// with the float one on a few windows of text (the screening: divergence and
// agreement), and measures the metrics. Spared are
//
//   the whole trial    of a method that lost already, on another grid, to one
//                      that takes no longer (by divergence) and is tried on
//                      this grid too;
//   the measurement    of a model whose divergence is worse than that of one
//                      that failed;
//   all methods        on a grid on which round to nearest diverges far more
//                      than on another. To know that, it is screened on every
//                      grid before the first method that reads text is tried.
//
// The first recipe within tolerance ends the search, unless time is given
// (RecipeSearchOptions::time). Then an int8 output head is tried and kept if it
// is within tolerance too. If no recipe is, the matrices of the best one are
// raised to more bits, those first that harm most for their size; how many, is
// found by doubling and bisection.
#ifndef NIBBLE_QUANTIZATION_SEARCH_SEARCH_H_
#define NIBBLE_QUANTIZATION_SEARCH_SEARCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/tolerance.h"

namespace nibble {

// What rounding one matrix did to its block's output.
struct MatrixDamage {
  std::string name;  // "layers.3.down.weight"
  // Squared error over the squared output, or another measure that can be
  // compared between matrices.
  double damage = 0;
  int64_t weights = 0;
};

// A model that was quantized, and what the screening says of it.
struct QuantizedTrial {
  int64_t bytes = 0;  // of its matrices
  double bits_per_weight = 0;
  std::optional<double> kl_divergence;  // from the float model, per token
  std::optional<double> agreement;      // share of equal greedy tokens
  std::vector<MatrixDamage> damage;
  // That it took in an earlier run; not set: as long as the call.
  std::optional<double> seconds;
};

// Quantizes and measures. Trials are numbered from 0.
class Evaluator {
 public:
  virtual ~Evaluator() = default;

  // Of the float model; at least one metric.
  virtual absl::StatusOr<std::vector<Metric>> Baseline() = 0;
  // Keeps the model under the trial's number.
  virtual absl::StatusOr<QuantizedTrial> Quantize(size_t trial,
                                                  const Recipe& recipe) = 0;
  // Of a model that is kept: the baseline's metrics, in their order.
  virtual absl::StatusOr<std::vector<Metric>> Measure(size_t trial) = 0;
  // The model is not needed any more. Called once for each trial that
  // Quantize was called for, also where it failed, save for the one chosen.
  virtual void Discard(size_t trial) = 0;
};

enum class Verdict {
  kPassed,
  kFailed,       // loses more than the tolerance, or a metric is NaN
  kNotMeasured,  // diverges more than one that failed, or was screened only
  kError,
};
// "passed", "failed", "not measured", "error".
std::string VerdictName(Verdict verdict);

struct Trial {
  Recipe recipe;
  Verdict verdict = Verdict::kError;
  absl::Status error;  // of kError
  QuantizedTrial model;
  std::vector<Metric> metrics;  // empty unless measured
  double loss = 0;              // WorstLoss; NaN unless measured
  double quantize_seconds = 0;  // the screening too
  double measure_seconds = 0;
};

struct SkippedRecipe {
  Recipe recipe;
  std::string reason;
};

struct RecipeSearchOptions {
  double tolerance = 0.01;  // above 0
  ToleranceMode mode = ToleranceMode::kRelative;
  int trials = 100;  // at most, at least 1
  // 0: until the first success. Else no trial is begun that would end later,
  // as far as earlier ones tell (the first begins in any case), and after a
  // success the time left is spent on recipes of no more bits, of which that of
  // least divergence is chosen.
  absl::Duration time = absl::ZeroDuration();
  // What matrices are raised to when no recipe is within tolerance: 8 (int8),
  // 16 (bf16), or 0: none is.
  int raised_bits = 8;
  // Whether an int8 head is tried. It is not where the head is int8 anyway.
  bool try_int8_head = true;
  std::function<absl::Time()> now;  // null: absl::Now
  // Called after each trial; may be null.
  std::function<void(const Trial&)> report;
};

struct SearchResult {
  std::vector<Metric> baseline;
  std::vector<Trial> trials;  // in the order of their numbers
  std::vector<SkippedRecipe> skipped;
  // The trial of least cost that is within tolerance, else the one of least
  // loss; its model is kept.
  size_t chosen = 0;
  bool within_tolerance = false;
  // Why no more was tried: "a recipe within tolerance was found".
  std::string ended;
  double baseline_seconds = 0;
  double seconds = 0;
};

// InvalidArgument: options or recipes that make no sense, a baseline that is
// not finite. A trial that fails is reported and the search goes on; when none
// could be measured, the first one's error is returned. Cancelled ends it.
absl::StatusOr<SearchResult> SearchRecipe(absl::Span<const Recipe> recipes,
                                          Evaluator& evaluator,
                                          const RecipeSearchOptions& options);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_SEARCH_H_
