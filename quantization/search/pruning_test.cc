// The trials that a search spares.
#include "quantization/search/pruning.h"

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/fake_evaluator.h"
#include "quantization/search/search.h"
#include "quantization/search/search_testing.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::kPerplexity;
using ::nibble::testing::Lattice;
using ::nibble::testing::Names;
using ::nibble::testing::ParsedRecipe;
using ::nibble::testing::WithoutHead;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Pruning, DoesNotMeasureWhatDivergesMoreThanAFailure) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    const bool first = RecipeName(recipe) == "rtn int4 g128 zeros";
    return Outcome{11, first ? 0.10 : 0.12};
  });
  RecipeSearchOptions options = WithoutHead();
  options.trials = 3;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(Lattice(), evaluator, options));
  EXPECT_EQ(evaluator.measured, 1);
  EXPECT_EQ(result.trials[1].verdict, Verdict::kNotMeasured);
  EXPECT_TRUE(std::isnan(result.trials[1].loss));
  EXPECT_EQ(result.chosen, 0u);
}

TEST(Pruning, MeasuresWhatDivergesALittleMore) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    const bool first = RecipeName(recipe) == "rtn int4 g128 zeros";
    return first ? Outcome{11, 0.10} : Outcome{10, 0.105};
  });
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult result,
      SearchRecipe(Lattice(), evaluator, WithoutHead()));
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(result.chosen, 1u);
}

TEST(Pruning, SkipsMethodsThatLostOnAnotherGrid) {
  // AWQ loses to GPTQ, which takes less time; all fail.
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    const std::string method = MethodName(recipe);
    return Outcome{11, method == "gptq" ? 0.1 : method == "rtn" ? 0.3 : 0.2};
  });
  const std::vector<Recipe> recipes = {
      ParsedRecipe("rounding: NEAREST"),
      ParsedRecipe("rounding: GPTQ"),
      ParsedRecipe("transform: AWQ rounding: GPTQ"),
      ParsedRecipe("grid { group_size: 32 }"),
      ParsedRecipe("rounding: GPTQ grid { group_size: 32 }"),
      ParsedRecipe("transform: AWQ rounding: GPTQ grid { group_size: 32 }")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_THAT(Names(evaluator.recipes),
              ElementsAre("rtn int4 g128 zeros", "rtn int4 g32 zeros",
                          "gptq int4 g128 zeros", "awq+gptq int4 g128 zeros",
                          "gptq int4 g32 zeros"));
  ASSERT_EQ(result.skipped.size(), 2u);
  EXPECT_EQ(RecipeName(result.skipped[0].recipe), "rtn int4 g32 zeros");
  EXPECT_THAT(result.skipped[0].reason, HasSubstr("diverges more"));
  EXPECT_EQ(RecipeName(result.skipped[1].recipe), "awq+gptq int4 g32 zeros");
  EXPECT_THAT(result.skipped[1].reason, HasSubstr("another grid"));
}

TEST(Pruning, TriesAMethodThatLostWhereTheQuickerOneIsNotTried) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    return Outcome{11, MethodName(recipe) == "gptq" ? 0.1 : 0.2};
  });
  const std::vector<Recipe> recipes = {
      ParsedRecipe("rounding: GPTQ"),
      ParsedRecipe("transform: AWQ rounding: GPTQ"),
      ParsedRecipe("transform: AWQ rounding: GPTQ grid { group_size: 32 }")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_EQ(evaluator.recipes.size(), 3u);
}

TEST(Pruning, TellsRecipesApartByTheirExceptionsAndHeads) {
  // Range search beats round to nearest; exceptions beat both.
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    if (recipe.layers_size() > 0) return Outcome{10, 0.01};
    return Outcome{11, MethodName(recipe) == "rtn" ? 0.10 : 0.08};
  });
  const std::vector<Recipe> recipes = {
      ParsedRecipe("rounding: NEAREST"),
      ParsedRecipe("round_to_nearest { search: true }"),
      ParsedRecipe("head_bits: 8"),
      ParsedRecipe("layers { pattern: \"down\" bits: 8 }")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_EQ(evaluator.recipes.size(), 4u);
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(result.trials[result.chosen].recipe.layers_size(), 1);
}

// Divergences as a checkpoint has them that was rounded once, to groups of 32
// with minimums: round to nearest gives that grid back.
FakeEvaluator OnceRounded(double elsewhere) {
  return FakeEvaluator(kPerplexity, [=](const Recipe& recipe) {
    const bool its_grid = recipe.grid().group_size() == 32 &&
                          recipe.grid().offset() == Recipe::MINIMUMS;
    return its_grid ? Outcome{10.01, 0.001} : Outcome{14, elsewhere};
  });
}

TEST(Pruning, GivesUpGridsOnWhichRoundToNearestIsHopeless) {
  FakeEvaluator evaluator = OnceRounded(0.4);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult result,
      SearchRecipe(Lattice(), evaluator, WithoutHead()));
  EXPECT_TRUE(result.within_tolerance);
  const Trial& chosen = result.trials[result.chosen];
  EXPECT_EQ(RecipeName(chosen.recipe), "rtn int4 g32 minimums");
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
  int scouts = 0;
  for (const Trial& trial : result.trials) {
    EXPECT_FALSE(NeedsCalibration(trial.recipe)) << RecipeName(trial.recipe);
    if (&trial == &chosen || !IsPlainRounding(trial.recipe)) continue;
    scouts += trial.verdict == Verdict::kNotMeasured;
  }
  EXPECT_GE(scouts, 4);
  bool gptq_skipped = false;
  for (const SkippedRecipe& skipped : result.skipped) {
    if (RecipeName(skipped.recipe) != "gptq int4 g128 zeros") continue;
    gptq_skipped = true;
    EXPECT_THAT(skipped.reason, HasSubstr("closer to the float model"));
  }
  EXPECT_TRUE(gptq_skipped);
}

TEST(Pruning, TriesMethodsWhereGridsDifferLittle) {
  FakeEvaluator evaluator = OnceRounded(0.03);
  RecipeSearchOptions options = WithoutHead();
  options.trials = 20;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(Lattice(), evaluator, options));
  EXPECT_THAT(Names(evaluator.recipes), Contains("gptq int4 g128 zeros"));
}

TEST(Pruning, ScreensNoGridsWhenTrialsAreFew) {
  FakeEvaluator evaluator = OnceRounded(0.4);
  const std::vector<Recipe> recipes = {
      ParsedRecipe("rounding: NEAREST"), ParsedRecipe("rounding: GPTQ"),
      ParsedRecipe("grid { group_size: 32 offset: MINIMUMS }")};
  RecipeSearchOptions options = WithoutHead();
  options.trials = 2;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_THAT(Names(evaluator.recipes),
              ElementsAre("rtn int4 g128 zeros", "gptq int4 g128 zeros"));
}

}  // namespace
}  // namespace nibble
