// The recipes that a search tries, cheapest first (cost.h).
//
//   LatticeOptions options;
//   options.calibration.set_samples(128);
//   std::vector<Recipe> recipes = RecipeLattice(options);
//   recipes[0];    // rtn int4 g128 zeros
#ifndef NIBBLE_QUANTIZATION_SEARCH_LATTICE_H_
#define NIBBLE_QUANTIZATION_SEARCH_LATTICE_H_

#include <cstdint>
#include <vector>

#include "quantization/recipe/recipe.pb.h"

namespace nibble {

struct LatticeOptions {
  int bits = 4;
  std::vector<int64_t> group_sizes = {128, 64, 32};  // -1: the whole row
  // Symmetric groups are not among them: they save 0.8% at g128 and 2.7% at g32
  // of what zeros take, and lose what a smaller step would
  // (docs/quantization.md compares the grids).
  std::vector<Recipe::Offset> offsets = {Recipe::ZEROS, Recipe::MINIMUMS};
  Recipe::Calibration calibration;
  int head_bits = 16;
  // Exceptions that every recipe has.
  std::vector<Recipe::LayerSettings> layers;
};

// Complete recipes: every method on every grid. REQUIRES: options of which
// CompleteRecipe makes a recipe.
std::vector<Recipe> RecipeLattice(const LatticeOptions& options);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_LATTICE_H_
