#include "apps/auto/search_report.h"

#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "apps/common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/search/search.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::testing::HasSubstr;
using ::testing::Not;

Recipe Parse(const std::string& text) {
  auto recipe = ParseRecipe(text, "test");
  EXPECT_THAT(recipe, IsOk());
  return recipe.ok() ? *recipe : Recipe();
}

// A trial that lost 2%, one that could not be run, and one within 1%.
SearchRun ThreeTrials() {
  SearchRun run;
  SearchResult& result = run.result;
  result.baseline = {{"perplexity", 10, /*higher_is_better=*/false}};
  Trial failed;
  failed.recipe = Parse("rounding: NEAREST");
  failed.verdict = Verdict::kFailed;
  failed.metrics = {{"perplexity", 10.2, false}};
  failed.loss = 0.02;
  failed.model.bytes = 1500000;
  failed.model.bits_per_weight = 4.15625;
  failed.model.kl_divergence = 0.0123;
  Trial error;
  error.recipe = Parse("rounding: GPTQ");
  error.error = absl::ResourceExhaustedError("disk full\nbehind it");
  error.loss = std::nan("");
  Trial passed = failed;
  passed.recipe = Parse("grid { group_size: 64 }");
  passed.verdict = Verdict::kPassed;
  passed.metrics[0].value = 10.05;
  passed.loss = 0.005;
  result.trials = {failed, error, passed};
  for (const char* recipe : {"transform: AWQ", "transform: TEQ"}) {
    result.skipped.push_back({Parse(recipe), "reason one"});
    result.skipped.push_back({Parse("rounding: SIGNROUND"), "reason two"});
  }
  result.chosen = 2;
  result.within_tolerance = true;
  result.ended = "a recipe within tolerance was found";
  run.recipe_file = "model.textproto";
  return run;
}

TEST(SearchReport, HasARowForEachTrial) {
  const std::string text = SearchText(ThreeTrials());
  EXPECT_THAT(text, HasSubstr("10.2000  +2.00%  0.01230"));
  EXPECT_THAT(text, HasSubstr("error: disk full\n"));
  EXPECT_THAT(text, HasSubstr("+0.50%"));
  EXPECT_THAT(text, HasSubstr("chosen: rtn int4 g64 zeros, within 1% of the "
                              "float model, in 3 trials"));
  EXPECT_THAT(text, HasSubstr("recipe: model.textproto\n"));
}

TEST(SearchReport, ListsWhatWasSkippedByItsReason) {
  const std::string text = SearchText(ThreeTrials());
  EXPECT_THAT(text, HasSubstr("skipped, reason one: awq int4 g128 zeros; teq "
                              "int4 g128 zeros\nskipped, reason two: "));
}

TEST(SearchReport, SaysWhenNothingIsWithinTolerance) {
  SearchRun run = ThreeTrials();
  run.result.chosen = 0;
  run.result.within_tolerance = false;
  EXPECT_THAT(SearchText(run),
              HasSubstr("NOT within tolerance; the best: rtn int4 g128 zeros, "
                        "loses +2.00%, not 1% of the float model"));
}

TEST(SearchReport, JsonHasNoNaN) {
  const Json json = SearchJson(ThreeTrials());
  EXPECT_THAT(json.dump(), Not(HasSubstr("nan")));
  EXPECT_TRUE(json["trials"][1]["loss"].is_null());
  EXPECT_EQ(json["trials"][1]["error"], "disk full\nbehind it");
  EXPECT_EQ(json["trials"][2]["verdict"], "passed");
  EXPECT_EQ(json["skipped"].size(), 4u);
  EXPECT_EQ(json["chosen"], 2);
}

}  // namespace
}  // namespace nibble
