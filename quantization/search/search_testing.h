// What tests of the search share.
#ifndef NIBBLE_QUANTIZATION_SEARCH_SEARCH_TESTING_H_
#define NIBBLE_QUANTIZATION_SEARCH_SEARCH_TESTING_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/lattice.h"
#include "quantization/search/search.h"
#include "quantization/search/tolerance.h"
#include "testing/matchers.h"

namespace nibble::testing {

inline const Metric kPerplexity = {"perplexity", 10,
                                   /*higher_is_better=*/false};

inline Recipe ParsedRecipe(const std::string& text) {
  auto recipe = ParseRecipe(text, "test");
  EXPECT_THAT(recipe, IsOk());
  return recipe.ok() ? *recipe : Recipe();
}

inline std::vector<Recipe> Lattice() { return RecipeLattice(LatticeOptions()); }

inline std::vector<std::string> Names(absl::Span<const Recipe> recipes) {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes) names.push_back(RecipeName(recipe));
  return names;
}

// Of a search for the recipe alone.
inline RecipeSearchOptions WithoutHead() {
  RecipeSearchOptions options;
  options.try_int8_head = false;
  return options;
}

}  // namespace nibble::testing

#endif  // NIBBLE_QUANTIZATION_SEARCH_SEARCH_TESTING_H_
