#include "quantization/search/search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/cost.h"
#include "quantization/search/fallback.h"
#include "quantization/search/pruning.h"
#include "quantization/search/tolerance.h"

namespace nibble {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr char kFound[] = "a recipe within tolerance was found";

bool Finite(const std::vector<Metric>& metrics) {
  for (const Metric& metric : metrics) {
    if (!std::isfinite(metric.value)) return false;
  }
  return true;
}

absl::Status CheckSearch(absl::Span<const Recipe> recipes,
                         const RecipeSearchOptions& options) {
  // Also NaN.
  if (!(options.tolerance > 0) || !std::isfinite(options.tolerance)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tolerance: is ", options.tolerance,
                     "; must be above 0, such as 0.01 for one percent"));
  }
  if (options.trials < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("trials: is ", options.trials, "; must be at least 1"));
  }
  if (options.time < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("time: must be 0 or more");
  }
  if (recipes.empty()) {
    return absl::InvalidArgumentError("there is no recipe to try");
  }
  return absl::OkStatus();
}

class Search {
 public:
  Search(Evaluator& evaluator, const RecipeSearchOptions& options)
      : evaluator_(evaluator), options_(options), start_(Now()) {}

  absl::StatusOr<SearchResult> Run(absl::Span<const Recipe> recipes);

 private:
  absl::Status MeasureBaseline();
  absl::Status TryRecipes(absl::Span<const Recipe> recipes);
  absl::Status ScoutGrids(absl::Span<const Recipe> recipes);
  absl::Status TryInt8Head();
  absl::Status RaiseMatrices();

  using Preferred = bool (*)(const Trial& now, const Trial& kept);
  // Runs a trial and gives up all models but the one to keep. `preferred`: of
  // two trials within tolerance, whether the new one is.
  absl::StatusOr<Verdict> Try(const Recipe& recipe, Preferred preferred,
                              bool screening_only = false);
  absl::Status RunTrial(bool screening_only, Trial* trial);
  absl::Status MeasureTrial(Trial* trial);
  void Keep(Preferred preferred);

  // Whether trials and time are left; sets the reason for which it ended.
  bool BudgetLeft();
  // Why a recipe is not worth a trial; empty where it is.
  std::string ReasonToSkip(const Recipe& recipe,
                           absl::Span<const Recipe> recipes) const;
  // Says so where a trial would not end in time.
  std::string TooLong(const Recipe& recipe) const;
  double PredictedSeconds(const Recipe& recipe) const;

  absl::Time Now() const { return options_.now ? options_.now() : absl::Now(); }
  double Seconds(absl::Time since) const {
    return absl::ToDoubleSeconds(Now() - since);
  }
  const Trial* kept() const {
    return kept_.has_value() ? &result_.trials[*kept_] : nullptr;
  }
  bool passed() const {
    return kept() != nullptr && kept()->verdict == Verdict::kPassed;
  }

  Evaluator& evaluator_;
  const RecipeSearchOptions& options_;
  const absl::Time start_;
  SearchResult result_;
  std::optional<size_t> kept_;
  // Bits of the first recipe within tolerance.
  std::optional<double> bits_of_first_;
  // The most that a trial took: blocks of others may have spared it work.
  double seconds_per_pass_ = 0;
};

absl::Status Search::MeasureBaseline() {
  const absl::Time start = Now();
  absl::StatusOr<std::vector<Metric>> baseline = evaluator_.Baseline();
  if (!baseline.ok()) return baseline.status();
  if (baseline->empty()) {
    return absl::InvalidArgumentError("there is no metric to judge by");
  }
  for (const Metric& metric : *baseline) {
    if (std::isfinite(metric.value)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the float model's ", metric.name, " is ", metric.value,
                     ": nothing can be compared with it"));
  }
  result_.baseline = *std::move(baseline);
  result_.baseline_seconds = Seconds(start);
  return absl::OkStatus();
}

bool Search::BudgetLeft() {
  if (result_.trials.size() >= static_cast<size_t>(options_.trials)) {
    result_.ended = "the trials are used up";
    return false;
  }
  if (options_.time > absl::ZeroDuration() && Now() - start_ >= options_.time) {
    result_.ended = "the time is used up";
    return false;
  }
  return true;
}

absl::Status Search::MeasureTrial(Trial* trial) {
  const absl::Time start = Now();
  absl::StatusOr<std::vector<Metric>> metrics =
      evaluator_.Measure(result_.trials.size());
  trial->measure_seconds = Seconds(start);
  if (!metrics.ok()) return metrics.status();
  if (metrics->size() != result_.baseline.size()) {
    return absl::InternalError("other metrics than the float model's");
  }
  trial->metrics = *std::move(metrics);
  trial->loss = WorstLoss(result_.baseline, trial->metrics, options_.mode);
  trial->verdict = Finite(trial->metrics) && trial->loss <= options_.tolerance
                       ? Verdict::kPassed
                       : Verdict::kFailed;
  return absl::OkStatus();
}

absl::Status Search::RunTrial(bool screening_only, Trial* trial) {
  const absl::Time start = Now();
  absl::StatusOr<QuantizedTrial> model =
      evaluator_.Quantize(result_.trials.size(), trial->recipe);
  trial->quantize_seconds = Seconds(start);
  if (!model.ok()) return model.status();
  trial->model = *std::move(model);
  trial->quantize_seconds =
      trial->model.seconds.value_or(trial->quantize_seconds);
  const double passes = RecipePasses(trial->recipe);
  if (passes >= 1) {
    seconds_per_pass_ =
        std::max(seconds_per_pass_, trial->quantize_seconds / passes);
  }
  if (!screening_only && !IsHopeless(trial->model, result_.trials)) {
    return MeasureTrial(trial);
  }
  trial->verdict = Verdict::kNotMeasured;
  return absl::OkStatus();
}

// The last trial, or the one kept until now.
void Search::Keep(Preferred preferred) {
  const size_t last = result_.trials.size() - 1;
  const Trial& now = result_.trials[last];
  const bool measured =
      now.verdict == Verdict::kPassed || now.verdict == Verdict::kFailed;
  bool better = measured;
  if (measured && kept() != nullptr) {
    const bool now_passed = now.verdict == Verdict::kPassed;
    if (now_passed && passed()) {
      better = preferred(now, *kept());
    } else if (now_passed == passed()) {
      // The loss of the one or the other may be NaN.
      better = now.loss < kept()->loss ||
               (std::isnan(kept()->loss) && !std::isnan(now.loss));
    } else {
      better = now_passed;
    }
  }
  if (!better) return evaluator_.Discard(last);
  if (kept_.has_value()) evaluator_.Discard(*kept_);
  kept_ = last;
}

absl::StatusOr<Verdict> Search::Try(const Recipe& recipe, Preferred preferred,
                                    bool screening_only) {
  Trial trial;
  trial.recipe = recipe;
  trial.loss = kNaN;
  const absl::Status status = RunTrial(screening_only, &trial);
  if (!status.ok()) {
    trial.verdict = Verdict::kError;
    trial.error = status;
  }
  const Verdict verdict = trial.verdict;
  result_.trials.push_back(std::move(trial));
  Keep(preferred);
  if (absl::IsCancelled(status)) return status;
  if (options_.report) options_.report(result_.trials.back());
  return verdict;
}

double Search::PredictedSeconds(const Recipe& recipe) const {
  double measure_seconds = 0;
  for (const Trial& trial : result_.trials) {
    measure_seconds = std::max(measure_seconds, trial.measure_seconds);
  }
  return RecipePasses(recipe) * seconds_per_pass_ + measure_seconds;
}

std::string Search::TooLong(const Recipe& recipe) const {
  if (options_.time == absl::ZeroDuration()) return "";
  const double left = absl::ToDoubleSeconds(options_.time) - Seconds(start_);
  const double predicted = PredictedSeconds(recipe);
  if (predicted <= left) return "";
  return absl::StrFormat("takes about %.0f s of the %.0f s left", predicted,
                         left);
}

std::string Search::ReasonToSkip(const Recipe& recipe,
                                 absl::Span<const Recipe> recipes) const {
  if (bits_of_first_.has_value() && BitsPerWeight(recipe) > *bits_of_first_) {
    return "is larger than a recipe within tolerance";
  }
  std::string reason = ReasonToSpare(recipe, result_.trials, recipes);
  return reason.empty() ? TooLong(recipe) : reason;
}

// Seconds for each grid, before the first method that takes minutes or hours.
absl::Status Search::ScoutGrids(absl::Span<const Recipe> recipes) {
  std::vector<Recipe> scouts;
  bool compared = false;
  for (const Recipe& recipe : recipes) {
    if (!IsPlainRounding(recipe)) continue;
    if (PlainlyRounded(recipe, result_.trials) != nullptr) {
      compared = true;
    } else {
      scouts.push_back(recipe);
    }
  }
  // Most trials are for what may pass.
  const size_t left =
      static_cast<size_t>(options_.trials) - result_.trials.size();
  if (!compared || left < 2 * scouts.size()) return absl::OkStatus();
  for (const Recipe& recipe : scouts) {
    if (!BudgetLeft() || !TooLong(recipe).empty()) break;
    const absl::StatusOr<Verdict> verdict =
        Try(recipe, /*preferred=*/nullptr, /*screening_only=*/true);
    if (!verdict.ok()) return verdict.status();
  }
  return absl::OkStatus();
}

absl::Status Search::TryRecipes(absl::Span<const Recipe> recipes) {
  const auto closer = [](const Trial& now, const Trial& kept) {
    return now.model.kl_divergence.has_value() &&
                   kept.model.kl_divergence.has_value()
               ? *now.model.kl_divergence < *kept.model.kl_divergence
               : now.loss < kept.loss;
  };
  result_.ended = "every recipe was tried";
  bool scouted = false;
  for (const Recipe& recipe : recipes) {
    if (!BudgetLeft()) break;
    if (!scouted && !passed() && NeedsCalibration(recipe)) {
      scouted = true;
      const absl::Status status = ScoutGrids(recipes);
      if (!status.ok()) return status;
      if (!BudgetLeft()) break;
    }
    std::string reason = ReasonToSkip(recipe, recipes);
    if (!reason.empty()) {
      result_.skipped.push_back({recipe, std::move(reason)});
      continue;
    }
    const absl::StatusOr<Verdict> verdict = Try(recipe, closer);
    if (!verdict.ok()) return verdict.status();
    if (*verdict != Verdict::kPassed) continue;
    result_.ended = kFound;
    if (!bits_of_first_.has_value()) bits_of_first_ = BitsPerWeight(recipe);
    if (options_.time == absl::ZeroDuration()) break;
  }
  return absl::OkStatus();
}

absl::Status Search::TryInt8Head() {
  if (!options_.try_int8_head || kept()->recipe.head_bits() == 8) {
    return absl::OkStatus();
  }
  const std::string ended = result_.ended;
  const bool budget_left = BudgetLeft();
  result_.ended = ended;
  Recipe recipe = kept()->recipe;
  recipe.set_head_bits(8);
  if (!budget_left || !TooLong(recipe).empty()) return absl::OkStatus();
  return Try(recipe, [](const Trial&, const Trial&) { return true; }).status();
}

absl::Status Search::RaiseMatrices() {
  if (options_.raised_bits == 0 || kept() == nullptr ||
      kept()->model.damage.empty()) {
    return absl::OkStatus();
  }
  const Recipe base = kept()->recipe;
  const std::vector<std::string> names = ByDamage(kept()->model.damage);
  Bisection count(names.size());
  while (BudgetLeft()) {
    const std::optional<size_t> raised = count.Next();
    if (!raised.has_value()) break;
    const Recipe recipe = Raised(
        base, absl::MakeConstSpan(names).first(*raised), options_.raised_bits);
    if (!TooLong(recipe).empty()) {
      result_.ended = "the time left is too short for another trial";
      break;
    }
    const absl::StatusOr<Verdict> verdict =
        // Each that passes raises fewer than the one before.
        Try(recipe, [](const Trial&, const Trial&) { return true; });
    if (!verdict.ok()) return verdict.status();
    if (*verdict == Verdict::kPassed) result_.ended = kFound;
    count.Report(*verdict == Verdict::kPassed);
  }
  return absl::OkStatus();
}

absl::StatusOr<SearchResult> Search::Run(absl::Span<const Recipe> recipes) {
  absl::Status status = MeasureBaseline();
  if (status.ok()) status = TryRecipes(recipes);
  if (status.ok() && !passed()) status = RaiseMatrices();
  if (status.ok() && passed()) status = TryInt8Head();
  if (!status.ok()) return status;
  if (kept() == nullptr) {
    for (const Trial& trial : result_.trials) {
      if (!trial.error.ok()) return trial.error;
    }
    return absl::ResourceExhaustedError(
        absl::StrCat("no recipe was tried: ", result_.ended));
  }
  result_.chosen = *kept_;
  result_.within_tolerance = passed();
  result_.seconds = Seconds(start_);
  return std::move(result_);
}

}  // namespace

std::string VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "passed";
    case Verdict::kFailed:
      return "failed";
    case Verdict::kNotMeasured:
      return "not measured";
    case Verdict::kError:
      return "error";
  }
  return "";
}

absl::StatusOr<SearchResult> SearchRecipe(absl::Span<const Recipe> recipes,
                                          Evaluator& evaluator,
                                          const RecipeSearchOptions& options) {
  const absl::Status status = CheckSearch(recipes, options);
  if (!status.ok()) return status;
  return Search(evaluator, options).Run(recipes);
}

}  // namespace nibble
