// An evaluator for tests that makes models up.
#ifndef NIBBLE_QUANTIZATION_SEARCH_FAKE_EVALUATOR_H_
#define NIBBLE_QUANTIZATION_SEARCH_FAKE_EVALUATOR_H_

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"

namespace nibble {

// What a model is worth.
struct Outcome {
  Outcome(double value = 0, std::optional<double> divergence = std::nullopt)
      : metric(value), kl_divergence(divergence) {}

  double metric;
  std::optional<double> kl_divergence;
  absl::Status quantize_error, measure_error;
  absl::Duration takes = absl::ZeroDuration();
};

class FakeEvaluator : public Evaluator {
 public:
  using Judge = std::function<Outcome(const Recipe&)>;

  FakeEvaluator(Metric baseline, Judge judge)
      : baseline_(std::move(baseline)), judge_(std::move(judge)) {}

  absl::StatusOr<std::vector<Metric>> Baseline() override {
    return std::vector<Metric>{baseline_};
  }

  absl::StatusOr<QuantizedTrial> Quantize(size_t trial,
                                          const Recipe& recipe) override {
    EXPECT_TRUE(any_number || trial == recipes.size());
    recipes.push_back(recipe);
    by_number[trial] = recipe;
    kept.insert(trial);
    const Outcome outcome = judge_(recipe);
    clock += outcome.takes;
    if (!outcome.quantize_error.ok()) return outcome.quantize_error;
    QuantizedTrial model;
    model.kl_divergence = outcome.kl_divergence;
    model.damage = damage;
    model.seconds = seconds;
    return model;
  }

  absl::StatusOr<std::vector<Metric>> Measure(size_t trial) override {
    EXPECT_EQ(kept.count(trial), 1u);
    ++measured;
    const Outcome outcome = judge_(by_number.at(trial));
    if (!outcome.measure_error.ok()) return outcome.measure_error;
    Metric metric = baseline_;
    metric.value = outcome.metric;
    return std::vector<Metric>{metric};
  }

  void Discard(size_t trial) override { EXPECT_EQ(kept.erase(trial), 1u); }

  std::vector<MatrixDamage> damage;
  std::optional<double> seconds;
  std::vector<Recipe> recipes;  // of all trials
  std::map<size_t, Recipe> by_number;
  bool any_number = false;  // trials need not be numbered 0, 1, 2
  std::set<size_t> kept;
  int measured = 0;
  absl::Time clock = absl::UnixEpoch();

 private:
  const Metric baseline_;
  const Judge judge_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_FAKE_EVALUATOR_H_
