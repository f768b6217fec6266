// What a search does after the recipes: the output head, and the matrices that
// it raises when no recipe is within tolerance.
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
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

using ::nibble::testing::IsOk;
using ::nibble::testing::kPerplexity;
using ::nibble::testing::Lattice;
using ::nibble::testing::ParsedRecipe;
using ::nibble::testing::WithoutHead;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- The head

FakeEvaluator HeadEvaluator(double with_int8_head) {
  return FakeEvaluator(kPerplexity, [=](const Recipe& recipe) {
    return Outcome{recipe.head_bits() == 8 ? with_int8_head : 10.05};
  });
}

TEST(Search, KeepsAnInt8HeadWithinTolerance) {
  FakeEvaluator evaluator = HeadEvaluator(10.06);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult result,
      SearchRecipe(Lattice(), evaluator, RecipeSearchOptions()));
  ASSERT_EQ(result.trials.size(), 2u);
  EXPECT_EQ(result.chosen, 1u);
  EXPECT_EQ(result.trials[1].recipe.head_bits(), 8);
  EXPECT_THAT(evaluator.kept, ElementsAre(1u));
}

TEST(Search, GoesBackToAFloatHeadWhereInt8LosesTooMuch) {
  FakeEvaluator evaluator = HeadEvaluator(10.2);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult result,
      SearchRecipe(Lattice(), evaluator, RecipeSearchOptions()));
  ASSERT_EQ(result.trials.size(), 2u);
  EXPECT_EQ(result.chosen, 0u);
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_THAT(evaluator.kept, ElementsAre(0u));
}

TEST(Search, TriesNoHeadBeyondItsTrials) {
  FakeEvaluator evaluator = HeadEvaluator(10.06);
  RecipeSearchOptions options;
  options.trials = 1;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(Lattice(), evaluator, options));
  EXPECT_EQ(result.trials.size(), 1u);
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(result.ended, "a recipe within tolerance was found");
}

// ---- When no recipe is within tolerance

// 64 matrices, the later ones more damaged. Raising `needed` of them suffices.
FakeEvaluator DamagedEvaluator(int needed) {
  FakeEvaluator evaluator(kPerplexity, [=](const Recipe& recipe) {
    return Outcome{10.1 + 0.01 * (needed - recipe.layers_size())};
  });
  for (int i = 0; i < 64; ++i) {
    evaluator.damage.push_back(
        {absl::StrCat("layers.", i, ".up.weight"), 1.0 + i, 1024});
  }
  return evaluator;
}

TEST(Search, RaisesTheMostDamagedMatrices) {
  FakeEvaluator evaluator = DamagedEvaluator(11);
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: NEAREST")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_TRUE(result.within_tolerance);
  EXPECT_EQ(result.ended, "a recipe within tolerance was found");
  const Recipe& chosen = result.trials[result.chosen].recipe;
  // 1, 8, 16, 12, 10; steps of two 64ths.
  EXPECT_EQ(result.trials.size(), 5u);
  ASSERT_EQ(chosen.layers_size(), 12);
  EXPECT_EQ(chosen.layers(0).pattern(), "^layers\\.63\\.up\\.weight$");
  EXPECT_EQ(chosen.layers(0).bits(), 8);
  EXPECT_EQ(chosen.layers(11).pattern(), "^layers\\.52\\.up\\.weight$");
  EXPECT_THAT(CompleteRecipe(chosen), IsOk());
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, RaisesAllBeforeItGivesUp) {
  FakeEvaluator evaluator = DamagedEvaluator(100);
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: NEAREST")};
  RecipeSearchOptions options = WithoutHead();
  options.raised_bits = 16;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_FALSE(result.within_tolerance);
  EXPECT_EQ(result.ended, "every recipe was tried");
  const Recipe& chosen = result.trials[result.chosen].recipe;
  EXPECT_EQ(chosen.layers_size(), 64);
  EXPECT_EQ(chosen.layers(5).bits(), 16);
  EXPECT_THAT(evaluator.kept, ElementsAre(result.chosen));
}

TEST(Search, RaisesNothingWhereTheFormatHasOneWidth) {
  FakeEvaluator evaluator = DamagedEvaluator(11);
  RecipeSearchOptions options = WithoutHead();
  options.raised_bits = 0;
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: NEAREST")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials.size(), 1u);
  EXPECT_FALSE(result.within_tolerance);
}

TEST(Search, RaisesNothingBeyondItsTrials) {
  FakeEvaluator evaluator = DamagedEvaluator(60);
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: NEAREST")};
  RecipeSearchOptions options = WithoutHead();
  options.trials = 3;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials.size(), 3u);
  EXPECT_FALSE(result.within_tolerance);
  // The best of those that were tried.
  EXPECT_EQ(result.chosen, 2u);
  EXPECT_EQ(result.ended, "the trials are used up");
}

// 25 minutes for each trial.
FakeEvaluator SlowEvaluator(double loses) {
  FakeEvaluator evaluator(kPerplexity, [=](const Recipe&) {
    Outcome outcome(10 * (1 + loses));
    outcome.takes = absl::Minutes(25);
    return outcome;
  });
  evaluator.damage = {{"layers.0.up.weight", 1, 64}};
  return evaluator;
}

TEST(Search, RaisesNothingThatWouldNotEndInTime) {
  FakeEvaluator evaluator = SlowEvaluator(0.1);
  RecipeSearchOptions options = WithoutHead();
  options.time = absl::Minutes(40);
  options.now = [&] { return evaluator.clock; };
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: GPTQ")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, options));
  EXPECT_EQ(result.trials.size(), 1u);
  EXPECT_THAT(result.ended, HasSubstr("time left is too short"));
}

TEST(Search, TriesNoHeadThatWouldNotEndInTime) {
  for (const int minutes : {40, 60}) {
    FakeEvaluator evaluator = SlowEvaluator(0.001);
    RecipeSearchOptions options;
    options.time = absl::Minutes(minutes);
    options.now = [&] { return evaluator.clock; };
    const std::vector<Recipe> recipes = {ParsedRecipe("rounding: GPTQ")};
    NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                                SearchRecipe(recipes, evaluator, options));
    EXPECT_EQ(result.trials.size(), minutes == 40 ? 1u : 2u);
    EXPECT_TRUE(result.within_tolerance);
  }
}

TEST(Search, RaisesMatricesOfTheRecipeOfLeastLoss) {
  FakeEvaluator evaluator(kPerplexity, [](const Recipe& recipe) {
    if (recipe.layers_size() > 0) return Outcome{10};
    return Outcome{recipe.grid().group_size() == 64 ? 10.2 : 10.3};
  });
  evaluator.damage = {{"layers.0.up.weight", 1, 64}};
  const std::vector<Recipe> recipes = {ParsedRecipe("rounding: NEAREST"),
                                       ParsedRecipe("grid { group_size: 64 }"),
                                       ParsedRecipe("grid { group_size: 32 }")};
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, evaluator, WithoutHead()));
  EXPECT_EQ(RecipeName(result.trials[result.chosen].recipe),
            "rtn int4 g64 zeros, 1 exception");
}

}  // namespace
}  // namespace nibble
