#include "quantization/recipe/matrix_grids.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/round_to_nearest.h"
#include "quantization/rounding/grid.h"
#include "re2/re2.h"
#include "tensor/coded_matrix.h"

namespace nibble {
namespace {

constexpr absl::string_view kHead = "head.weight";

int64_t GroupSize(int64_t in_recipe) {
  return in_recipe == -1 ? kWholeRow : in_recipe;
}

CodeOffset Offset(Recipe::Offset in_recipe) {
  switch (in_recipe) {
    case Recipe::SYMMETRIC:
      return CodeOffset::kSymmetric;
    case Recipe::ZEROS:
      return CodeOffset::kZeros;
    case Recipe::MINIMUMS:
      return CodeOffset::kMinimums;
  }
  return CodeOffset::kZeros;
}

}  // namespace

absl::StatusOr<MatrixGrids> MatrixGrids::Create(const Recipe& recipe) {
  MatrixGrids grids;
  grids.spec_ = {recipe.grid().bits(), GroupSize(recipe.grid().group_size()),
                 Offset(recipe.grid().offset())};
  grids.head_bits_ = recipe.head_bits();
  for (const Recipe::LayerSettings& settings : recipe.layers()) {
    RE2::Options options;
    options.set_log_errors(false);
    auto pattern = std::make_unique<RE2>(settings.pattern(), options);
    if (!pattern->ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("layers.pattern: ", pattern->error()));
    }
    grids.exceptions_.push_back({std::move(pattern), settings});
  }
  return grids;
}

std::optional<MatrixGrid> MatrixGrids::Find(absl::string_view name) const {
  if (name == kHead) {
    if (head_bits_ == 16) return std::nullopt;
    return MatrixGrid{{head_bits_, kHeadGroupSize, CodeOffset::kSymmetric},
                      /*nearest=*/true};
  }
  MatrixGrid grid = {spec_, false};
  for (const Exception& exception : exceptions_) {
    if (!RE2::PartialMatch(name, *exception.pattern)) continue;
    const Recipe::LayerSettings& settings = exception.settings;
    if (settings.has_bits()) {
      grid.spec.bits = settings.bits();
      grid.nearest = settings.bits() == 8;
    }
    if (settings.has_group_size()) {
      grid.spec.group_size = GroupSize(settings.group_size());
    }
    if (settings.has_offset()) grid.spec.offset = Offset(settings.offset());
  }
  if (grid.spec.bits == 16) return std::nullopt;
  if (grid.spec.bits == 8) grid.spec.offset = CodeOffset::kSymmetric;
  return grid;
}

absl::Status MatrixGrids::CheckPatterns(
    absl::Span<const std::string> names) const {
  for (const Exception& exception : exceptions_) {
    const bool used = absl::c_any_of(names, [&](const std::string& name) {
      return name != kHead && RE2::PartialMatch(name, *exception.pattern);
    });
    if (used) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "recipe: layers.pattern '", exception.settings.pattern(),
        "' matches no matrix of a layer; names are like "
        "layers.0.down.weight, and the output head has head_bits"));
  }
  return absl::OkStatus();
}

}  // namespace nibble
