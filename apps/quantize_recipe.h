// The recipe that the command line of `quantize` describes, and the
// calibration text.
#ifndef NIBBLE_APPS_QUANTIZE_RECIPE_H_
#define NIBBLE_APPS_QUANTIZE_RECIPE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// Flags of every method, as they were given.
struct GivenGrid {
  std::string method;  // "rtn" where none was given
  bool has_method = false;
  std::optional<int> bits;
  std::optional<int64_t> group_size;  // -1: the whole row
  std::optional<bool> symmetric;
  std::optional<std::string> offset;
  std::optional<std::string> keep_float;
  std::optional<int> head_bits;
  bool gguf = false;  // the output's format, whose groups are of 32
};

struct RecipeRequest {
  Recipe recipe;  // not complete (recipe.h)
  // A file, or empty: none is read. The recipe's calibration has the rest.
  std::string calibration;
  // Whether --length, or the recipe, says how long windows are.
  bool has_length = false;
};

// nullopt: the flags ask for nothing but rounding to nearest (or keeping codes)
// as quantization/flow.h does it. Errors name the flag: options of a method
// that is not used, --recipe together with what it says, values out of range.
absl::StatusOr<std::optional<RecipeRequest>> RecipeFromFlags(
    const GivenGrid& given);

// What a search for a recipe begins with: the grid, the calibration and what
// stays float. Errors name the flag: a method and its options, which the search
// chooses, and no calibration text.
absl::StatusOr<RecipeRequest> SearchBaseFromFlags(const GivenGrid& given);

// InvalidArgument, naming it, for a flag that says what the recipes of
// --search_space say.
absl::Status CheckSearchSpaceAlone(const GivenGrid& given);

}  // namespace nibble

#endif  // NIBBLE_APPS_QUANTIZE_RECIPE_H_
