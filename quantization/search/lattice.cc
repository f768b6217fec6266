#include "quantization/search/lattice.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/cost.h"

namespace nibble {
namespace {

// What a tenth of TEQ's usual iterations leaves is within 8 % of what all of
// them do (docs/quantization.md).
constexpr int kTeqIterations = 20;

// SignRound at a quarter of the iterations takes five times the rate of one
// over their usual number, as AutoRound's light preset does.
constexpr int kLightIterations = 50;
constexpr double kLightRate = 5e-3;

// Every method, without a grid.
std::vector<Recipe> Methods() {
  std::vector<Recipe> methods;
  const auto add = [&methods](Recipe::Transform transform,
                              Recipe::Rounding rounding) {
    Recipe recipe;
    recipe.set_transform(transform);
    recipe.set_rounding(rounding);
    methods.push_back(std::move(recipe));
    return &methods.back();
  };
  add(Recipe::NONE, Recipe::NEAREST);
  add(Recipe::NONE, Recipe::NEAREST)
      ->mutable_round_to_nearest()
      ->set_search(true);
  Recipe::RoundToNearest* weighted =
      add(Recipe::NONE, Recipe::NEAREST)->mutable_round_to_nearest();
  weighted->set_search(true);
  weighted->set_importance(true);
  add(Recipe::NONE, Recipe::GPTQ);
  add(Recipe::AWQ, Recipe::NEAREST);
  add(Recipe::AWQ, Recipe::GPTQ);
  add(Recipe::TEQ, Recipe::GPTQ)->mutable_teq()->set_iterations(kTeqIterations);
  // More of it is not worth its time: in 189 of 192 blocks nothing was better
  // than the result of GPTQ that it starts from (docs/quantization.md).
  Recipe::SignRound* light =
      add(Recipe::NONE, Recipe::SIGNROUND)->mutable_signround();
  light->set_iterations(kLightIterations);
  light->set_learning_rate(kLightRate);
  return methods;
}

}  // namespace

std::vector<Recipe> RecipeLattice(const LatticeOptions& options) {
  std::vector<Recipe> recipes;
  for (const int64_t group_size : options.group_sizes) {
    for (const Recipe::Offset offset : options.offsets) {
      for (Recipe recipe : Methods()) {
        recipe.mutable_grid()->set_bits(options.bits);
        recipe.mutable_grid()->set_group_size(group_size);
        recipe.mutable_grid()->set_offset(offset);
        recipe.set_head_bits(options.head_bits);
        for (const Recipe::LayerSettings& layer : options.layers) {
          *recipe.add_layers() = layer;
        }
        if (NeedsCalibration(recipe)) {
          *recipe.mutable_calibration() = options.calibration;
        }
        absl::StatusOr<Recipe> complete = CompleteRecipe(recipe);
        CHECK(complete.ok()) << complete.status();
        recipes.push_back(*std::move(complete));
      }
    }
  }
  absl::c_stable_sort(recipes, [](const Recipe& a, const Recipe& b) {
    return RecipeCost(a) < RecipeCost(b);
  });
  return recipes;
}

}  // namespace nibble
