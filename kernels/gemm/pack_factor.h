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

// One block of 256 k of all of `a`, whose panel is of PanelBytes().
// REQUIRES: a.count() == groups.rows <= kMaxPanelRows, groups of at most 16
// rows, 0 <= block < BlocksFor(a.depth()).
inline constexpr int64_t kMaxPanelRows = 512;
void PackPanelBlock(const Factor& a, const RowGroups& groups,
                    PanelFormat format, int64_t block, std::byte* panel);

// A unit is kTilesPerUnit tiles in one block of 256 k.
inline constexpr int64_t kTilesPerUnit = 8;
inline int64_t TileUnits(const PackedLayout& layout) {
  return CeilDiv(layout.records(), kTilesPerUnit) * BlocksFor(layout.inputs);
}

// Units [begin, end) of `b` as `tiles` of `layout`, kF32 or kBF16.
void PackTileUnits(const Factor& b, const PackedLayout& layout, int64_t begin,
                   int64_t end, std::byte* tiles);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_PACK_FACTOR_H_
