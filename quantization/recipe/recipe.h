// How a model is quantized, as text: read, checked, named and written.
//
//   absl::StatusOr<Recipe> recipe = ReadRecipe("awq.textproto");
//   if (!recipe.ok()) return recipe.status();
//   RecipeName(*recipe);        // "awq+gptq int4 g32 zeros"
//   RecipeText(*recipe);        // every setting, also those not given
//
// The fields are in recipe.proto. A recipe that is read is complete: all the
// settings that its methods have are there, and none that they have not. Errors
// of a file name it, the line and the field:
//
//   awq.textproto:4: gptq: has no effect without rounding: GPTQ
//
// Refused are unknown fields, values out of range, and contradictions: options
// of a method that is not used, 8 bits with zeros or minimums, two searches for
// one range, a calibration that nothing reads.
#ifndef NIBBLE_QUANTIZATION_RECIPE_RECIPE_H_
#define NIBBLE_QUANTIZATION_RECIPE_RECIPE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// `file` is what errors call the text.
absl::StatusOr<Recipe> ParseRecipe(absl::string_view text,
                                   absl::string_view file);
absl::StatusOr<Recipe> ReadRecipe(const std::string& path);

// The recipes of a RecipeList, at least one. Those that read text and do not
// say which have the calibration given.
absl::StatusOr<std::vector<Recipe>> ParseRecipes(
    absl::string_view text, absl::string_view file,
    const Recipe::Calibration& calibration);
absl::StatusOr<std::vector<Recipe>> ReadRecipes(
    const std::string& path, const Recipe::Calibration& calibration);

// The same of a recipe that was made in memory. Complete recipes stay as they
// are.
absl::StatusOr<Recipe> CompleteRecipe(const Recipe& recipe);

// The transform and the rounding, without or with the grid and the exceptions:
// "awq+gptq", "rtn search int4 g128 symmetric, head int8". Of complete recipes.
std::string MethodName(const Recipe& recipe);
std::string RecipeName(const Recipe& recipe);

// The text that ParseRecipe reads back as the same recipe; its first line is a
// comment with the name.
std::string RecipeText(const Recipe& recipe);

// Whether it reads token windows.
bool NeedsCalibration(const Recipe& recipe);

// Whether GPTQ runs: as the rounding itself, or for training to start with.
bool RunsGptq(const Recipe& recipe);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_RECIPE_RECIPE_H_
