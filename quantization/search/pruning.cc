#include "quantization/search/pruning.h"

#include <string>

#include "absl/algorithm/container.h"
#include "absl/types/span.h"
#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"
#include "quantization/search/cost.h"
#include "quantization/search/search.h"

namespace nibble {
namespace {

// A model is not measured when its divergence is this many times that of one
// that failed: the screening's windows are few, and its mean is that uncertain.
constexpr double kHopelessDivergence = 1.1;

// A grid is given up when round to nearest diverges this many times as much on
// it as on another: other methods make up for a factor of 4 to 12, of 30 at
// most (docs/quantization.md).
constexpr double kHopelessGrid = 50;

// All but the method.
bool SameGrid(const Recipe& a, const Recipe& b) {
  const auto grid = [](const Recipe& recipe) {
    Recipe part;
    *part.mutable_grid() = recipe.grid();
    *part.mutable_layers() = recipe.layers();
    part.set_head_bits(recipe.head_bits());
    return part.SerializeAsString();
  };
  return grid(a) == grid(b);
}

bool IsToBeTried(const std::string& method, const Recipe& grid,
                 absl::Span<const Recipe> recipes) {
  return absl::c_any_of(recipes, [&](const Recipe& recipe) {
    return MethodName(recipe) == method && SameGrid(recipe, grid);
  });
}

// A method that a quicker one beat on some grid will not win on this one, where
// the quicker one is tried too.
bool LostOnAnotherGrid(const Recipe& recipe, absl::Span<const Trial> trials,
                       absl::Span<const Recipe> recipes) {
  const std::string method = MethodName(recipe);
  for (const Trial& lost : trials) {
    if (MethodName(lost.recipe) != method || !lost.model.kl_divergence) {
      continue;
    }
    for (const Trial& won : trials) {
      if (MethodName(won.recipe) != method && won.model.kl_divergence &&
          SameGrid(won.recipe, lost.recipe) &&
          RecipePasses(won.recipe) <= RecipePasses(recipe) &&
          *won.model.kl_divergence <= *lost.model.kl_divergence &&
          IsToBeTried(MethodName(won.recipe), recipe, recipes)) {
        return true;
      }
    }
  }
  return false;
}

bool OnHopelessGrid(const Recipe& recipe, absl::Span<const Trial> trials) {
  const QuantizedTrial* here = PlainlyRounded(recipe, trials);
  if (here == nullptr) return false;
  for (const Trial& trial : trials) {
    if (IsPlainRounding(trial.recipe) && trial.model.kl_divergence &&
        *here->kl_divergence > kHopelessGrid * *trial.model.kl_divergence) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool IsPlainRounding(const Recipe& recipe) {
  return recipe.transform() == Recipe::NONE &&
         recipe.rounding() == Recipe::NEAREST &&
         !recipe.round_to_nearest().search();
}

const QuantizedTrial* PlainlyRounded(const Recipe& recipe,
                                     absl::Span<const Trial> trials) {
  for (const Trial& trial : trials) {
    if (IsPlainRounding(trial.recipe) && trial.model.kl_divergence &&
        SameGrid(trial.recipe, recipe)) {
      return &trial.model;
    }
  }
  return nullptr;
}

bool IsHopeless(const QuantizedTrial& model, absl::Span<const Trial> trials) {
  if (!model.kl_divergence.has_value()) return false;
  for (const Trial& other : trials) {
    if (other.verdict == Verdict::kFailed &&
        other.model.kl_divergence.has_value() &&
        *model.kl_divergence >
            kHopelessDivergence * *other.model.kl_divergence) {
      return true;
    }
  }
  return false;
}

std::string ReasonToSpare(const Recipe& recipe, absl::Span<const Trial> trials,
                          absl::Span<const Recipe> recipes) {
  if (LostOnAnotherGrid(recipe, trials, recipes)) {
    return "a method that takes no longer did better on another grid";
  }
  if (OnHopelessGrid(recipe, trials)) {
    return "round to nearest is far closer to the float model on another grid";
  }
  if (!IsPlainRounding(recipe)) return "";
  const QuantizedTrial* screened = PlainlyRounded(recipe, trials);
  if (screened == nullptr || !IsHopeless(*screened, trials)) return "";
  return "diverges more than a model that failed";
}

}  // namespace nibble
