#include "quantization/search/journal.h"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/fake_evaluator.h"
#include "quantization/search/lattice.h"
#include "quantization/search/search.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kFirstGood = 5;
constexpr size_t kNone = kFirstGood + 1;  // is not reached

std::string JournalPath() {
  const std::string path =
      ::testing::TempDir() + "/journal_" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove(path);
  return path;
}

// Every method on one grid: all trials are measured.
std::vector<Recipe> OneGrid() {
  LatticeOptions options;
  options.group_sizes = {128};
  options.offsets = {Recipe::ZEROS};
  return RecipeLattice(options);
}

// Of these, the recipe at kFirstGood is within tolerance; the one at
// `cancelled` is interrupted.
FakeEvaluator MakeEvaluator(size_t cancelled) {
  const std::vector<Recipe> recipes = OneGrid();
  const std::string good = RecipeName(recipes[kFirstGood]);
  const std::string bad = RecipeName(recipes[cancelled]);
  FakeEvaluator evaluator(
      {"perplexity", 10, false}, [good, bad](const Recipe& recipe) {
        Outcome outcome(RecipeName(recipe) == good ? 10.0 : 1.0 / 3 + 12, 0.1);
        if (RecipeName(recipe) == bad) {
          outcome.quantize_error = absl::CancelledError("");
        }
        return outcome;
      });
  evaluator.damage = {{"layers.0.up.weight", 1.0 / 3, 64}};
  return evaluator;
}

RecipeSearchOptions Options() {
  RecipeSearchOptions options;
  options.try_int8_head = false;
  return options;
}

TEST(Journal, AResumedSearchFindsTheSameAndRepeatsNothing) {
  const std::string path = JournalPath();
  const std::vector<Recipe> recipes = OneGrid();
  FakeEvaluator first = MakeEvaluator(/*cancelled=*/3);
  JournalEvaluator first_journal(first, path, "model");
  EXPECT_EQ(first_journal.Resume(), 0u);
  EXPECT_THAT(SearchRecipe(recipes, first_journal, Options()),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));

  FakeEvaluator second = MakeEvaluator(kNone);
  second.any_number = true;
  JournalEvaluator second_journal(second, path, "model");
  EXPECT_EQ(second_journal.Resume(), 3u);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult resumed,
                              SearchRecipe(recipes, second_journal, Options()));
  EXPECT_EQ(second.recipes.size(), 3u);

  FakeEvaluator whole = MakeEvaluator(kNone);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult expected,
                              SearchRecipe(recipes, whole, Options()));
  EXPECT_EQ(resumed.chosen, expected.chosen);
  ASSERT_EQ(resumed.trials.size(), expected.trials.size());
  for (size_t i = 0; i < expected.trials.size(); ++i) {
    EXPECT_EQ(resumed.trials[i].loss, expected.trials[i].loss);
    EXPECT_EQ(resumed.trials[i].model.damage[0].damage,
              expected.trials[i].model.damage[0].damage);
  }
  EXPECT_THAT(second.kept, ElementsAre(resumed.chosen));
}

TEST(Journal, RemembersWhatTrialsTook) {
  const std::string path = JournalPath();
  FakeEvaluator first({"perplexity", 10, false}, [](const Recipe&) {
    absl::SleepFor(absl::Milliseconds(30));
    return Outcome(10);
  });
  const std::vector<Recipe> recipes = {OneGrid()[0]};
  JournalEvaluator first_journal(first, path, "model");
  ASSERT_THAT(SearchRecipe(recipes, first_journal, Options()), IsOk());

  FakeEvaluator second = MakeEvaluator(kNone);
  JournalEvaluator second_journal(second, path, "model");
  EXPECT_EQ(second_journal.Resume(), 1u);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult resumed,
                              SearchRecipe(recipes, second_journal, Options()));
  EXPECT_GE(resumed.trials[0].quantize_seconds, 0.03);

  // Not those of this run, of recipes that come again as the screening's do.
  FakeEvaluator again({"perplexity", 10, false},
                      [](const Recipe&) { return Outcome(12); });
  JournalEvaluator again_journal(again, JournalPath(), "model");
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const SearchResult twice,
      SearchRecipe({recipes[0], recipes[0]}, again_journal, Options()));
  EXPECT_EQ(again.recipes.size(), 1u);
  EXPECT_FALSE(twice.trials[1].model.seconds.has_value());
  EXPECT_THAT(second.recipes, IsEmpty());
}

TEST(Journal, QuantizesAModelAgainOnlyWhereItIsNeeded) {
  const std::string path = JournalPath();
  const std::vector<Recipe> recipes = OneGrid();
  FakeEvaluator first = MakeEvaluator(kNone);
  JournalEvaluator first_journal(first, path, "model");
  ASSERT_TRUE(SearchRecipe(recipes, first_journal, Options()).ok());

  FakeEvaluator second = MakeEvaluator(kNone);
  second.any_number = true;
  JournalEvaluator second_journal(second, path, "model");
  EXPECT_EQ(second_journal.Resume(), kFirstGood + 1);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const SearchResult result,
                              SearchRecipe(recipes, second_journal, Options()));
  EXPECT_THAT(second.recipes, IsEmpty());
  ASSERT_TRUE(second_journal.NeedModel(result.chosen).ok());
  ASSERT_TRUE(second_journal.NeedModel(result.chosen).ok());
  ASSERT_EQ(second.recipes.size(), 1u);
  EXPECT_EQ(RecipeName(second.recipes[0]), RecipeName(recipes[kFirstGood]));
  EXPECT_THAT(second.kept, ElementsAre(result.chosen));
}

TEST(Journal, BeginsAnewForAnotherModelOrADamagedFile) {
  const std::string path = JournalPath();
  FakeEvaluator evaluator = MakeEvaluator(kNone);
  JournalEvaluator journal(evaluator, path, "model");
  ASSERT_TRUE(SearchRecipe(OneGrid(), journal, Options()).ok());
  EXPECT_EQ(JournalEvaluator(evaluator, path, "another").Resume(), 0u);
  EXPECT_EQ(JournalEvaluator(evaluator, path, "model").Resume(),
            kFirstGood + 1);
  std::ofstream(path, std::ios::app) << "trials {";
  EXPECT_EQ(JournalEvaluator(evaluator, path, "model").Resume(), 0u);
}

}  // namespace
}  // namespace nibble
