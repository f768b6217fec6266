// What a recipe makes of each matrix.
//
//   absl::StatusOr<MatrixGrids> grids = MatrixGrids::Create(recipe);
//   if (!grids.ok()) return grids.status();
//   std::optional<MatrixGrid> grid = grids->Find("layers.3.down.weight");
//   if (!grid.has_value()) { /* stays bf16 */ }
//
// Names are those of a .nib file: layers.N.qkv.weight,
// layers.N.attention.weight, layers.N.up.weight, layers.N.down.weight,
// head.weight.
#ifndef NIBBLE_QUANTIZATION_RECIPE_MATRIX_GRIDS_H_
#define NIBBLE_QUANTIZATION_RECIPE_MATRIX_GRIDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/rounding/grid.h"
#include "re2/re2.h"

namespace nibble {

// Of an int8 head. Its error is a hundredth of INT4's in any group; short
// groups would only add scales to the matrix that every token reads.
inline constexpr int64_t kHeadGroupSize = 128;

struct MatrixGrid {
  GridSpec spec;
  // Rounded to nearest, whatever the recipe's rounding: int8 by an exception,
  // and the head.
  bool nearest = false;
};

class MatrixGrids {
 public:
  // REQUIRES: a complete recipe (recipe.h).
  static absl::StatusOr<MatrixGrids> Create(const Recipe& recipe);

  // Not set: the matrix stays bf16.
  std::optional<MatrixGrid> Find(absl::string_view name) const;

  // InvalidArgument, naming it, for a pattern that matches none of `names`.
  absl::Status CheckPatterns(absl::Span<const std::string> names) const;

 private:
  struct Exception {
    std::unique_ptr<RE2> pattern;
    Recipe::LayerSettings settings;
  };

  GridSpec spec_;
  int head_bits_ = 16;
  std::vector<Exception> exceptions_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_RECIPE_MATRIX_GRIDS_H_
