// Packs the factors of a product from either orientation: the first as a panel
// (kernels/matmul/panel_layout.h), the second as tiles
// (tensor/packed_layout.h). The work comes in units for threads to share.
#ifndef NIBBLE_KERNELS_GEMM_PACK_FACTOR_H_
#define NIBBLE_KERNELS_GEMM_PACK_FACTOR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/gemm/factor.h"
#include "kernels/matmul/activations.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

namespace nibble {

// A first factor's rows in units, each with a panel of its own.
struct PanelUnits {
  int64_t rows;      // of a unit, but for the last
  int64_t max_rows;  // of a group, at most 16
  int64_t bytes;     // from panel to panel
  PanelFormat format;
};

// Rows that are packed together: columns of a transposed factor, which are read
// in pieces of 2 KiB, long enough for hardware to fetch ahead.
inline constexpr int64_t kPackedRows = 512;

// All of `a` in blocks [begin, end) of 256 k. REQUIRES: a.count() <=
// kPackedRows if transposed.
void PackPanels(const Factor& a, const PanelUnits& units, int64_t begin,
                int64_t end, std::byte* panels);

// The same of both factors of x^T x, from one pass over x [depth, rows] and, in
// bf16, one rounding. `tiles` of `layout` begin with x's first column.
// REQUIRES: x.count() <= kPackedRows, and a multiple of 16 but for the last
// columns of the layout; the panel's format is the layout's.
void PackPanelsAndTiles(const Factor& x, const PanelUnits& units,
                        const PackedLayout& layout, int64_t block,
                        std::byte* panels, std::byte* tiles);

// The second factor's tiles come in units too.
int64_t TileUnits(const Factor& b, const PackedLayout& layout);

// Units [begin, end) of `b` as `tiles` of `layout`, kF32 or kBF16.
void PackTileUnits(const Factor& b, const PackedLayout& layout, int64_t begin,
                   int64_t end, std::byte* tiles);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_PACK_FACTOR_H_
