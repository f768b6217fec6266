// Turns the codes of integer weights into signed bytes in the rows that AMX
// tiles want, once for all rows of activations.
//
// Codes are unsigned and AMX could multiply them so (TDPBSUD), with zero points
// as a correction by the activations' sums. As the bytes are written out anyway
// here, subtracting the zero point costs one instruction per 64 of them, and
// saves starting each tile of sums at a correction; code - zero is within -15
// and 15, or -128 and 127, so the sums are the same.
#if defined(NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_
#undef NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul/amx_plan.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using LineU8 = hn::CappedTag<uint8_t, kPackedLineBytes>;
using VU8 = hn::Vec<LineU8>;
static_assert(hn::MaxLanes(LineU8()) == kPackedLineBytes);
static_assert(kVectorsPerTile == 1);

// The zero point of each output of a tile, four times: [16][4] bytes.
HWY_INLINE VU8 ZeroPoints(const PackedLayout& layout, const std::byte* record,
                          int64_t group, int tile) {
  const hn::RebindToSigned<TileF32> di;
  return hn::BitCast(LineU8(), hn::Mul(LoadZeros(layout, record, group, tile),
                                       hn::Set(di, 0x01010101)));
}

// scales[0, 32) = the weights' scales in `group`.
HWY_INLINE void DecodeScales(const PackedLayout& layout,
                             const std::byte* record, int64_t group,
                             float* scales) {
  const TileF32 d;
  hn::Store(LoadScales(layout, record, group, 0), d, scales);
  hn::Store(LoadScales(layout, record, group, 1), d, scales + kTileOutputs);
}

// The bytes of one group of a record: tiles of `plan.step` inputs, first the
// one of outputs 0..15, then that of 16..31: [steps][2][step / 4][64 bytes].
// Inputs beyond the matrix are zero.
inline void DecodeGroup(const PackedLayout& layout, const Int8TilePlan& plan,
                        const std::byte* record, int64_t group, uint8_t* out) {
  const LineU8 d;
  const int64_t begin = group * layout.group_size;
  const int64_t inputs = std::min(layout.group_size, layout.inputs - begin);
  const int64_t chunks = CeilDiv(inputs, layout.chunk_inputs());
  const std::byte* codes = record + layout.codes_offset() +
                           begin / layout.chunk_inputs() * kRecordOutputs /
                               kTileOutputs * kPackedLineBytes;
  const int64_t rows_per_tile = plan.step / 4;
  const int64_t rows = CeilDiv(inputs, plan.step) * rows_per_tile;
  const bool nibbles = layout.format == WeightFormat::kInt4;
  const VU8 low = hn::Set(d, 15);
  for (int tile = 0; tile < 2; ++tile) {
    const VU8 zeros = ZeroPoints(layout, record, group, tile);
    const auto store = [&](int64_t row, VU8 line) HWY_ATTR {
      const int64_t step = row / rows_per_tile;
      hn::Store(
          line, d,
          out + ((step * 2 + tile) * rows_per_tile + row % rows_per_tile) *
                    kPackedLineBytes);
    };
    int64_t row = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const VU8 line = hn::Load(d, reinterpret_cast<const uint8_t*>(codes) +
                                       (chunk * 2 + tile) * kPackedLineBytes);
      if (nibbles) {
        const hn::Repartition<uint16_t, LineU8> d16;
        const VU8 high =
            hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, line)));
        store(row++, hn::Sub(hn::And(line, low), zeros));
        store(row++, hn::Sub(hn::And(high, low), zeros));
      } else {
        store(row++, hn::Sub(line, zeros));
      }
    }
    for (; row < rows; ++row) store(row, hn::Zero(d));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_
