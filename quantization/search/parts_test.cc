// What the search is made of: costs, the order of recipes, tolerances, and
// which matrices to raise.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/cost.h"
#include "quantization/search/fallback.h"
#include "quantization/search/lattice.h"
#include "quantization/search/search_testing.h"
#include "quantization/search/tolerance.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::ParsedRecipe;
using ::testing::ElementsAre;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(ByDamage, OrdersByDamagePerWeight) {
  EXPECT_THAT(ByDamage({{"a", 1, 10},
                        {"b", 3, 10},
                        {"c", 4, 100},
                        {"d", kNaN, 10},
                        {"e", 3, 10}}),
              ElementsAre("d", "b", "e", "a", "c"));
}

TEST(Bisection, FindsTheLeastNumberWithinAStep) {
  for (const size_t count : {1, 2, 3, 7, 8, 31, 64, 112, 500}) {
    for (size_t needed = 1; needed <= count + 1; ++needed) {
      Bisection bisection(count);
      size_t enough = count + 1;
      int trials = 0;
      while (const std::optional<size_t> n = bisection.Next()) {
        ASSERT_GE(*n, 1u);
        ASSERT_LE(*n, count);
        if (*n >= needed) enough = *n;
        bisection.Report(*n >= needed);
        ASSERT_LE(++trials, 10);
      }
      EXPECT_GE(enough, needed);
      if (needed <= count) {
        EXPECT_LT(enough, needed + std::max<size_t>(1, count / 32));
      }
    }
  }
}

TEST(RecipeLattice, BeginsWithTheCheapestAndHasEveryMethodOnEveryGrid) {
  const std::vector<Recipe> recipes = RecipeLattice(LatticeOptions());
  EXPECT_EQ(RecipeName(recipes[0]), "rtn int4 g128 zeros");
  std::map<std::string, int> grids, methods;
  for (const Recipe& recipe : recipes) {
    ++methods[MethodName(recipe)];
    ++grids[recipe.grid().ShortDebugString()];
    NIBBLE_ASSERT_OK_AND_ASSIGN(const Recipe complete, CompleteRecipe(recipe));
    EXPECT_EQ(complete.SerializeAsString(), recipe.SerializeAsString());
  }
  EXPECT_EQ(grids.size(), 6u);
  EXPECT_EQ(grids.size() * methods.size(), recipes.size());
  for (const auto& [method, count] : methods) {
    EXPECT_EQ(static_cast<size_t>(count), grids.size()) << method;
  }
  for (size_t i = 1; i < recipes.size(); ++i) {
    EXPECT_LE(RecipeCost(recipes[i - 1]), RecipeCost(recipes[i]));
  }
}

TEST(RecipeLattice, TakesWhatIsAskedOf) {
  LatticeOptions options;
  options.bits = 3;
  options.group_sizes = {-1};
  options.offsets = {Recipe::SYMMETRIC};
  options.calibration.set_samples(7);
  options.head_bits = 8;
  options.layers.emplace_back();
  options.layers.back().set_pattern("down");
  options.layers.back().set_bits(16);
  for (const Recipe& recipe : RecipeLattice(options)) {
    EXPECT_EQ(recipe.grid().ShortDebugString(),
              "bits: 3 group_size: -1 offset: SYMMETRIC");
    EXPECT_EQ(recipe.head_bits(), 8);
    EXPECT_EQ(recipe.layers_size(), 1);
    EXPECT_EQ(recipe.calibration().samples(),
              NeedsCalibration(recipe) ? 7 : 128);
  }
}

TEST(RecipeCost, CountsBitsOfGroups) {
  EXPECT_EQ(BitsPerWeight(ParsedRecipe("rounding: NEAREST")), 4 + 20 / 128.);
  EXPECT_EQ(
      BitsPerWeight(ParsedRecipe("grid { group_size: 32 offset: MINIMUMS }")),
      5);
  EXPECT_EQ(BitsPerWeight(ParsedRecipe("grid { offset: SYMMETRIC }")), 4.125);
  EXPECT_EQ(BitsPerWeight(ParsedRecipe("grid { group_size: -1 bits: 3 }")), 3);
}

TEST(RecipeCost, TakesADoublingOfTimeForAPercentOfBytes) {
  const Recipe rtn = ParsedRecipe("grid { group_size: -1 }");
  const Recipe tuned =
      ParsedRecipe("rounding: SIGNROUND grid { group_size: -1 }");
  EXPECT_EQ(RecipeCost(rtn), 0);
  EXPECT_NEAR(RecipeCost(tuned), std::log2(1 + RecipePasses(tuned)), 1e-12);
}

TEST(RecipeCost, KnowsWhatAwqIsFollowedBy) {
  const auto of_awq = [](const std::string& rounding) {
    return RecipePasses(ParsedRecipe("transform: AWQ " + rounding)) -
           RecipePasses(ParsedRecipe(rounding));
  };
  // Without GPTQ a candidate for the scales is a product of matrices.
  const double before_gptq = of_awq("rounding: GPTQ");
  EXPECT_NEAR(of_awq("rounding: SIGNROUND signround { start_with_gptq: true }"),
              before_gptq, 1e-9);
  EXPECT_GT(of_awq("rounding: SIGNROUND signround { start_with_gptq: false }"),
            before_gptq + 0.5);
}

TEST(RecipeCost, KnowsThatTeqStartsFromAwqBeforeGptq) {
  const auto of = [](const char* transform, const std::string& rounding) {
    return RecipePasses(ParsedRecipe(transform + rounding)) -
           RecipePasses(ParsedRecipe(rounding));
  };
  const double alone = RecipePasses(ParsedRecipe("transform: TEQ")) - 2;
  EXPECT_GT(alone, 10);
  EXPECT_NEAR(of("transform: TEQ ", "rounding: GPTQ"),
              alone + of("transform: AWQ ", "rounding: GPTQ"), 1e-9);
}

TEST(Tolerance, TheWorstMetricCounts) {
  const std::vector<Metric> base = {{"perplexity", 10, false},
                                    {"accuracy", 0.5, true}};
  std::vector<Metric> now = base;
  const ToleranceMode mode = ToleranceMode::kRelative;
  EXPECT_EQ(WorstLoss(base, now, mode), 0);
  now[0].value = 9;
  now[1].value = 0.45;
  EXPECT_NEAR(WorstLoss(base, now, mode), 0.1, 1e-12);
  now[0].value = kNaN;
  EXPECT_TRUE(std::isnan(WorstLoss(base, now, mode)));
}

TEST(Tolerance, OfABaselineOfZero) {
  const Metric zero = {"accuracy", 0, true};
  EXPECT_EQ(MetricLoss(zero, zero, ToleranceMode::kRelative), 0);
  const Metric low = {"loss", 0, false}, high = {"loss", 1, false};
  EXPECT_EQ(MetricLoss(low, high, ToleranceMode::kRelative),
            std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace nibble
