// The part of a product that int8 panels leave out: a few activations far
// larger than the rest of their group (quantize_activations.h).
#ifndef NIBBLE_KERNELS_MATMUL_OUTLIERS_H_
#define NIBBLE_KERNELS_MATMUL_OUTLIERS_H_

#include <cstdint>

#include "kernels/matmul/kernel.h"

namespace nibble {

// Adds to the sums of records [first, end), for each row and each of its
// outliers, inputs ascending: sum = fma(excess, weight, sum), with the weight
// dequantized in f32. The same bits on every ISA.
// REQUIRES: an int8 panel.
void AddOutliers(const Product& product, int64_t first, int64_t end,
                 Totals totals);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_OUTLIERS_H_
