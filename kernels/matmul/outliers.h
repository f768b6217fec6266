// The part of a product that int8 panels leave out: a few activations far
// larger than the rest of their group (quantize_activations.h).
#ifndef NIBBLE_KERNELS_MATMUL_OUTLIERS_H_
#define NIBBLE_KERNELS_MATMUL_OUTLIERS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matmul/kernel.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Bytes that SortOutliers needs; 0 for few rows, which do without.
int64_t SortedOutlierBytes(const PackedLayout& layout, int64_t rows);

// Sets panel.sorted_outliers, in `memory`, so that each record's weights of one
// input are dequantized once for all rows, and in the order of memory.
// REQUIRES: SortedOutlierBytes() > 0 of `memory`, aligned to 64 bytes.
void SortOutliers(const PackedLayout& layout, std::byte* memory, Panel& panel);

// Adds to the sums of records [first, end), for each row and each of its
// outliers, inputs ascending: sum = fma(excess, weight, sum), with the weight
// dequantized in f32. The same bits on every ISA.
// REQUIRES: an int8 panel.
void AddOutliers(const Product& product, int64_t first, int64_t end,
                 Totals totals);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_OUTLIERS_H_
