// What a recipe costs: once, to quantize, and with every token, to read.
//
//   RecipePasses(recipe);     // 7.8 times the calibration text's forward pass
//   BitsPerWeight(recipe);    // 4.15625
//   RecipeCost(recipe);       // 7.0, to compare recipes by
//
// Of complete recipes (quantization/recipe/recipe.h).
#ifndef NIBBLE_QUANTIZATION_SEARCH_COST_H_
#define NIBBLE_QUANTIZATION_SEARCH_COST_H_

#include "quantization/recipe/recipe.pb.h"

namespace nibble {

// Time to quantize, in passes of the calibration text through the float blocks.
// docs/quantization.md has the measurements behind it.
double RecipePasses(const Recipe& recipe);

// Of the matrices of the layers without exceptions: codes, and the scales and
// zeros or minimums of their groups.
double BitsPerWeight(const Recipe& recipe);

// The percents by which the weights pass 4 bits, and one more for each doubling
// of the time to quantize: decoding is bound by the bytes it reads, so a
// percent of bytes is a percent of the time of every token to come, while time
// to quantize is spent once.
double RecipeCost(const Recipe& recipe);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SEARCH_COST_H_
