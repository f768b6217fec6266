// Whether a recipe makes sense, with the lines of its text.
#ifndef NIBBLE_QUANTIZATION_RECIPE_RECIPE_CHECK_H_
#define NIBBLE_QUANTIZATION_RECIPE_RECIPE_CHECK_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/text_format.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// InvalidArgument, "file:line: field: problem", for the first thing wrong.
// `lines` is where the text's fields stand, or null: then the error begins with
// `file` and the field.
absl::Status CheckRecipe(
    const Recipe& recipe, absl::string_view file,
    const google::protobuf::TextFormat::ParseInfoTree* lines);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_RECIPE_RECIPE_CHECK_H_
