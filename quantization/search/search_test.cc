// The search with fake evaluators.

#include "quantization/search/search.h"

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/cost.h"
#include "quantization/search/fake_evaluator.h"
#include "quantization/search/search_testing.h"
#include "quantization/search/tolerance.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::kPerplexity;
using ::nibble::testing::Lattice;
using ::nibble::testing::Names;
using ::nibble::testing::ParsedRecipe;
using ::nibble::testing::StatusIs;
using ::nibble::testing::WithoutHead;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

const Metric kAccuracy = {"accuracy", 0.5, /*higher_is_better=*/true};

TEST(Search, StopsAtTheFirstRecipeWithinTolerance) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    return Outcome{recipe.rounding() == Recipe::GPTQ ? 10.05 : 10.5};
  });
  const std::vector<Recipe> recipes = Lattice();
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(result.chosen, result.trials.size() - 1);
  const Trial& chosen = result.trials[result.chosen];
  EXPECT_EQ(chosen.recipe.rounding(), Recipe::GPTQ);
  EXPECT_EQ(chosen.verdict, Verdict::kPassed);
  EXPECT_NEAR(chosen.loss, 0.005, 1e-9);
  for (size_t i = 0; i < result.trials.size(); ++i) {
    EXPECT_EQ(RecipeName(result.trials[i].recipe), RecipeName(recipes[i]));
  }
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, EqualToTheBaselineIsWithinTolerance) {
  for (const Metric& baseline : {kPerplexity, kAccuracy}) {
    FakeEvaluator evaluator(
        baseline, [&](const Recipe&) { return Outcome{baseline.value}; });
    NIBBLE_ASSERT_OK_AND_ASSIGN(
        const SearchResult result,
        SearchRecipe(Lattice(), evaluator, WithoutHead()));
    EXPECT_TRUE(result.within_tolerance);
    EXPECT_EQ(result.trials.size(), 1u);
  }
}

TEST(Search, KnowsWhichDirectionIsWorse) {
  const auto verdict = [](const Metric& baseline, double value,
                          ToleranceMode mode) {
    FakeEvaluator evaluator(baseline,
                            [&](const Recipe&) { return Outcome{value}; });
    RecipeSearchOptions options = WithoutHead();
    options.trials = 1;
    options.mode = mode;
    auto result = SearchRecipe(Lattice(), evaluator, options);
    EXPECT_THAT(result, IsOk());
    return result->trials[0].verdict;
  };
  const ToleranceMode relative = ToleranceMode::kRelative;
  const ToleranceMode absolute = ToleranceMode::kAbsolute;
  EXPECT_EQ(verdict(kPerplexity, 10.09, relative), Verdict::kPassed);
  EXPECT_EQ(verdict(kPerplexity, 10.11, relative), Verdict::kFailed);
  EXPECT_EQ(verdict(kPerplexity, 8, relative), Verdict::kPassed);
  EXPECT_EQ(verdict(kPerplexity, 10.009, absolute), Verdict::kPassed);
  EXPECT_EQ(verdict(kPerplexity, 10.011, absolute), Verdict::kFailed);
  EXPECT_EQ(verdict(kAccuracy, 0.496, relative), Verdict::kPassed);
  EXPECT_EQ(verdict(kAccuracy, 0.494, relative), Verdict::kFailed);
  EXPECT_EQ(verdict(kAccuracy, 0.7, relative), Verdict::kPassed);
  EXPECT_EQ(verdict(kAccuracy, 0.491, absolute), Verdict::kPassed);
  EXPECT_EQ(verdict(kAccuracy, 0.489, absolute), Verdict::kFailed);
  const Metric log_likelihood = {"log-likelihood", -2, true};
  EXPECT_EQ(verdict(log_likelihood, -2.01, relative), Verdict::kPassed);
  EXPECT_EQ(verdict(log_likelihood, -2.03, relative), Verdict::kFailed);
}

TEST(Search, NaNFailsAndIsNeverChosenOverANumber) {
  for (const Metric& baseline : {kPerplexity, kAccuracy}) {
    FakeEvaluator evaluator(baseline, [&](const Recipe& recipe) {
      const bool first = RecipeName(recipe) == "rtn int4 g128 zeros";
      const bool second = RecipeName(recipe) == "rtn search int4 g128 zeros";
      const double worse = baseline.higher_is_better ? 0.2 : 20;
      return Outcome{first    ? kNaN
                     : second ? worse
                              : std::numeric_limits<double>::infinity()};
    });
    RecipeSearchOptions options = WithoutHead();
    options.trials = 4;
    NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                                SearchRecipe(Lattice(), evaluator, options));
    EXPECT_FALSE(result.within_tolerance);
    EXPECT_EQ(result.trials[0].verdict, Verdict::kFailed);
    EXPECT_EQ(result.trials[3].verdict, Verdict::kFailed);
    EXPECT_EQ(result.chosen, 1u);
    EXPECT_THAT(evaluator.kept, ElementsAre(1u));
  }
}

TEST(Search, RefusesABaselineThatIsNotFinite) {
  FakeEvaluator evaluator({"perplexity", kNaN, false},
                          [](const Recipe&) { return Outcome{1}; });
  EXPECT_THAT(SearchRecipe(Lattice(), evaluator, WithoutHead()),
              StatusIs(kInvalid, HasSubstr("perplexity is nan")));
  EXPECT_THAT(evaluator.recipes, IsEmpty());
}

TEST(Search, RefusesOptionsThatMeanNothing) {
  FakeEvaluator evaluator(kPerplexity,
                          [](const Recipe&) { return Outcome{10}; });
  for (const double tolerance :
       {0.0, -0.01, kNaN, std::numeric_limits<double>::infinity()}) {
    RecipeSearchOptions options;
    options.tolerance = tolerance;
    EXPECT_THAT(SearchRecipe(Lattice(), evaluator, options),
                StatusIs(kInvalid, HasSubstr("tolerance: is")));
  }
  RecipeSearchOptions options;
  options.trials = 0;
  EXPECT_THAT(SearchRecipe(Lattice(), evaluator, options),
              StatusIs(kInvalid, HasSubstr("trials: is 0")));
  options = RecipeSearchOptions();
  options.time = -absl::Hours(1);
  EXPECT_THAT(SearchRecipe(Lattice(), evaluator, options),
              StatusIs(kInvalid, HasSubstr("time: ")));
  EXPECT_THAT(SearchRecipe({}, evaluator, RecipeSearchOptions()),
              StatusIs(kInvalid, HasSubstr("no recipe to try")));
  EXPECT_THAT(evaluator.recipes, IsEmpty());
}

TEST(Search, GoesOnAfterATrialThatFailsToRun) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    Outcome outcome(10);
    if (recipe.rounding() != Recipe::GPTQ) {
      outcome.quantize_error = absl::InvalidArgumentError("broken");
    } else if (recipe.transform() == Recipe::NONE) {
      outcome.measure_error = absl::ResourceExhaustedError("full");
    }
    return outcome;
  });
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult result,
      SearchRecipe(Lattice(), evaluator, WithoutHead()));
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(RecipeName(result.trials[result.chosen].recipe),
            "awq+gptq int4 g128 zeros");
  EXPECT_EQ(result.trials[0].verdict, Verdict::kError);
  EXPECT_THAT(result.trials[0].error, StatusIs(kInvalid, "broken"));
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, ReturnsTheErrorWhenNoTrialRuns) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe&) {
    Outcome outcome;
    outcome.quantize_error = absl::ResourceExhaustedError("disk full");
    return outcome;
  });
  EXPECT_THAT(
      SearchRecipe(Lattice(), evaluator, WithoutHead()),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk full")));
  EXPECT_THAT(evaluator.kept, IsEmpty());
}

TEST(Search, EndsWhenItIsCancelled) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe&) {
    Outcome outcome;
    outcome.quantize_error = absl::CancelledError("stopped");
    return outcome;
  });
  EXPECT_THAT(SearchRecipe(Lattice(), evaluator, WithoutHead()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("stopped")));
  EXPECT_EQ(evaluator.recipes.size(), 1u);
  EXPECT_THAT(evaluator.kept, IsEmpty());
}

TEST(Search, TriesNoMoreThanItsTrials) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    return Outcome{12 - 0.1 * RecipePasses(recipe)};
  });
  evaluator.damage = {{"layers.0.up.weight", 1, 64}};
  RecipeSearchOptions options = WithoutHead();
  options.trials = 5;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(Lattice(), evaluator, options));
  EXPECT_EQ(result.trials.size(), 5u);
  EXPECT_FALSE(result.within_tolerance);
  EXPECT_EQ(result.ended, "the trials are used up");
  // The least loss, though none is tolerable.
  for (const Trial& trial : result.trials) {
    EXPECT_LE(result.trials[result.chosen].loss, trial.loss);
  }
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, SpendsGivenTimeOnRecipesAsSmall) {
  const std::vector<Recipe> recipes = {
      ParsedRecipe("rounding: NEAREST"),
      ParsedRecipe("grid { offset: MINIMUMS }"),
      ParsedRecipe("round_to_nearest { search: true }"),
      ParsedRecipe("rounding: GPTQ")};
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    const std::string method = MethodName(recipe);
    return Outcome{10, method == "rtn" ? 0.03 : method == "gptq" ? 0.02 : 0.01};
  });
  RecipeSearchOptions options = WithoutHead();
  options.time = absl::Hours(1);
  options.now = [&] { return evaluator.clock; };
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials.size(), 3u);
  EXPECT_EQ(RecipeName(result.trials[result.chosen].recipe),
            "rtn search int4 g128 zeros");
  ASSERT_EQ(result.skipped.size(), 1u);
  EXPECT_THAT(result.skipped[0].reason, HasSubstr("larger"));
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, BeginsNothingWhenTheTimeIsUp) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe&) {
    Outcome outcome(11);
    outcome.takes = absl::Minutes(25);
    return outcome;
  });
  RecipeSearchOptions options = WithoutHead();
  options.time = absl::Hours(1);
  options.now = [&] { return evaluator.clock; };
  const std::vector<Recipe> recipes(5, ParsedRecipe("rounding: NEAREST"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials.size(), 3u);
  EXPECT_EQ(result.ended, "the time is used up");
}

TEST(Search, JudgesTimeByWhatAnEarlierRunTook) {
  // As a journal answers: at once, with the seconds that it took.
  FakeEvaluator evaluator(kPerplexity,
                          [](const Recipe&) { return Outcome(11); });
  evaluator.seconds = 3000;
  RecipeSearchOptions options = WithoutHead();
  options.time = absl::Hours(1);
  options.now = [&] { return evaluator.clock; };
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: GPTQ"),
                                       ParsedRecipe("rounding: SIGNROUND")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials[0].quantize_seconds, 3000);
  ASSERT_EQ(result.skipped.size(), 1u);
  EXPECT_THAT(result.skipped[0].reason, HasSubstr("s left"));
}

TEST(Search, SkipsWhatWouldNotEndInTime) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    Outcome outcome(11);
    outcome.takes = absl::Minutes(10) * RecipePasses(recipe);
    return outcome;
  });
  RecipeSearchOptions options = WithoutHead();
  options.time = absl::Hours(3);
  options.now = [&] { return evaluator.clock; };
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: GPTQ"),
                                       ParsedRecipe("rounding: SIGNROUND"),
                                       ParsedRecipe("transform: AWQ")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_THAT(Names(evaluator.recipes),
              ElementsAre("gptq int4 g128 zeros", "awq int4 g128 zeros"));
  ASSERT_EQ(result.skipped.size(), 1u);
  EXPECT_THAT(result.skipped[0].reason, HasSubstr("s left"));
}

}  // namespace
}  // namespace nibble
