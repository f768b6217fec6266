#include "quantization/search/cost.h"

#include <algorithm>
#include <cmath>

#include "quantization/recipe/recipe.h"
#include "quantization/recipe/recipe.pb.h"

namespace nibble {
namespace {

// How often 32 windows say how good the present state is.
constexpr double kJudgings = 7;

// Iterations of a batch, forward and backward: the gradients of inputs and of
// weights are a product each.
double TuningPasses(const Recipe& recipe, double iterations, double batch) {
  const double samples = recipe.calibration().samples();
  return (3 * iterations * std::min(batch, samples) +
          kJudgings * std::min(32.0, samples)) /
         samples;
}

// Of a search for the range of each group, which reads no text.
constexpr double kRangeSearch = 0.2;

// Second moments of the inputs, and AWQ's scales from their variances.
constexpr double kScalesBeforeGptq = 1.2;

// GPTQ's statistics and rounding.
double GptqPasses(const Recipe::Gptq& gptq) {
  // As far as each of four inputs, or as far as the last of them.
  double forward = gptq.true_sequential() ? 1.6 : 1;
  // Second moments, in f32 and of one triangle.
  double moments = 0.6;
  if (gptq.asymmetric_correction() > 0) {
    // The float model's inputs beside them, and moments of both.
    forward *= 2;
    moments += 1.2;
  }
  const double rounding = 0.6 + (gptq.search() ? kRangeSearch : 0);
  return forward + moments + rounding;
}

}  // namespace

double RecipePasses(const Recipe& recipe) {
  double passes = 0;
  if (NeedsCalibration(recipe)) {
    passes += 2;  // the float blocks and the quantized ones
  }
  if (recipe.round_to_nearest().search()) passes += kRangeSearch;
  switch (recipe.transform()) {
    case Recipe::NONE:
      break;
    case Recipe::AWQ:
      // The inputs' second moments; then, unless GPTQ will round, a product
      // with them for each step.
      passes += RunsGptq(recipe) ? kScalesBeforeGptq
                                 : 1 + 0.06 * recipe.awq().scale_steps();
      break;
    case Recipe::TEQ:
      passes +=
          TuningPasses(recipe, recipe.teq().iterations(), recipe.teq().batch());
      // AWQ's scales, where the training starts.
      if (RunsGptq(recipe)) passes += kScalesBeforeGptq;
      break;
  }
  if (RunsGptq(recipe)) passes += GptqPasses(recipe.gptq());
  if (recipe.rounding() == Recipe::SIGNROUND) {
    passes += TuningPasses(recipe, recipe.signround().iterations(),
                           recipe.signround().batch());
  }
  return passes;
}

double BitsPerWeight(const Recipe& recipe) {
  const Recipe::Grid& grid = recipe.grid();
  if (grid.group_size() == -1) return grid.bits();
  // Scales and minimums in f16, zeros in 4 bits.
  double group_bits = 16;
  if (grid.offset() == Recipe::ZEROS) group_bits += 4;
  if (grid.offset() == Recipe::MINIMUMS) group_bits += 16;
  return grid.bits() + group_bits / static_cast<double>(grid.group_size());
}

double RecipeCost(const Recipe& recipe) {
  return 100 * (BitsPerWeight(recipe) / 4 - 1) +
         std::log2(1 + RecipePasses(recipe));
}

}  // namespace nibble
