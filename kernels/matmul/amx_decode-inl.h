// Turns the codes of integer weights into what AMX tiles multiply, signed bytes
// or bf16, once for all rows of activations and a few chunks at a time, so that
// it goes on between the multiplies of the block before.
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
#include "kernels/matmul/tile_shapes.h"
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

// A block of K of one record, decoded.
struct DecodedBlock {
  int64_t first_group;
  int64_t groups;
  uint8_t* weights;  // [groups][steps][2 tiles][step / 4][64 bytes]
  float* scales;     // [groups][32]
};

// Decodes a block a few chunks at a time, so that the work fits between the
// multiplies of the block before. Inputs beyond the matrix become zero.
class BlockDecoder {
 public:
  BlockDecoder(const PackedLayout& layout, const Int8TilePlan& plan)
      : layout_(layout), plan_(plan), tile_bytes_(plan.step * kTileOutputs) {}

  // REQUIRES: what was begun is finished.
  void Start(const std::byte* record, const DecodedBlock& block) {
    record_ = record;
    group_ = block.first_group;
    end_group_ = group_ + block.groups;
    codes_ = reinterpret_cast<const uint8_t*>(record) + layout_.codes_offset() +
             group_ * layout_.group_size / layout_.chunk_inputs() * 2 *
                 kPackedLineBytes;
    next_weights_ = block.weights;
    scales_ = block.scales;
    chunks_left_ = 0;
    finished_ = false;
  }

  bool finished() const { return finished_; }

  HWY_INLINE void Advance(int64_t chunks) {
    for (; chunks > 0; --chunks) {
      if (chunks_left_ == 0 && !NextGroup()) return;
      DecodeChunk();
    }
  }

  void Finish() {
    while (!finished_ && (chunks_left_ > 0 || NextGroup())) DecodeChunk();
  }

 private:
  // Pads the group that ends here and begins the next, if there is one.
  HWY_NOINLINE bool NextGroup() {
    const LineU8 d;
    for (; padding_rows_ > 0; --padding_rows_) {
      StoreRow(hn::Zero(d), hn::Zero(d));
    }
    if (group_ == end_group_) {
      finished_ = true;
      return false;
    }
    const int64_t inputs = std::min(
        layout_.group_size, layout_.inputs - group_ * layout_.group_size);
    const int64_t rows_per_chunk = layout_.chunk_inputs() / 4;
    chunks_left_ = CeilDiv(inputs, layout_.chunk_inputs());
    padding_rows_ = CeilDiv(inputs, plan_.step) * (plan_.step / 4) -
                    chunks_left_ * rows_per_chunk;
    line_ = next_weights_;
    tile_end_ = line_ + tile_bytes_;
    next_weights_ += plan_.group_bytes;
    zeros_[0] = ZeroPoints(layout_, record_, group_, 0);
    zeros_[1] = ZeroPoints(layout_, record_, group_, 1);
    DecodeScales(layout_, record_, group_, scales_);
    scales_ += kRecordOutputs;
    ++group_;
    return true;
  }

  // The next row of both tiles.
  HWY_INLINE void StoreRow(VU8 first, VU8 second) {
    const LineU8 d;
    hn::Store(first, d, line_);
    hn::Store(second, d, line_ + tile_bytes_);
    line_ += kTileRowBytes;
    if (line_ == tile_end_) {
      line_ += tile_bytes_;
      tile_end_ = line_ + tile_bytes_;
    }
  }

  HWY_INLINE void DecodeChunk() {
    const LineU8 d;
    const VU8 first = hn::Load(d, codes_);
    const VU8 second = hn::Load(d, codes_ + kPackedLineBytes);
    codes_ += 2 * kPackedLineBytes;
    --chunks_left_;
    if (layout_.format == WeightFormat::kInt8) {
      StoreRow(hn::Sub(first, zeros_[0]), hn::Sub(second, zeros_[1]));
      return;
    }
    const VU8 low = hn::Set(d, 15);
    StoreRow(hn::Sub(hn::And(first, low), zeros_[0]),
             hn::Sub(hn::And(second, low), zeros_[1]));
    StoreRow(hn::Sub(hn::And(HighNibbles(first), low), zeros_[0]),
             hn::Sub(hn::And(HighNibbles(second), low), zeros_[1]));
  }

  // In the low ones; the high ones hold anything.
  static HWY_INLINE VU8 HighNibbles(VU8 line) {
    const hn::Repartition<uint16_t, LineU8> d16;
    return hn::BitCast(LineU8(), hn::ShiftRight<4>(hn::BitCast(d16, line)));
  }

  const PackedLayout layout_;
  const Int8TilePlan plan_;
  const int64_t tile_bytes_;
  bool finished_ = true;
  const std::byte* record_ = nullptr;
  int64_t group_ = 0;  // the next one
  int64_t end_group_ = 0;
  const uint8_t* codes_ = nullptr;   // of the next chunk
  uint8_t* next_weights_ = nullptr;  // of the next group
  float* scales_ = nullptr;
  // Of the current group.
  int64_t chunks_left_ = 0;
  int64_t padding_rows_ = 0;
  uint8_t* line_ = nullptr;      // the next row of the first tile
  uint8_t* tile_end_ = nullptr;  // where that tile ends
  VU8 zeros_[2];
};

// A tile of outputs over a block of kBlockInputs as bf16, as panel_layout.h and
// packed_layout.h draw it.
inline constexpr int64_t kBF16TileBytes = kBlockInputs / 2 * kStepBytes;

// The same for weights as bf16: a block of kBlockInputs of one record becomes
// two tiles of steps. Steps behind the last input are not written.
class BF16Decoder {
 public:
  explicit BF16Decoder(const PackedLayout& layout)
      : layout_(layout), per_chunk_(layout.chunk_inputs()) {}

  // REQUIRES: what was begun is finished.
  void Start(const std::byte* record, int64_t block, std::byte* out) {
    record_ = record;
    input_ = group_end_ = block * kBlockInputs;
    end_ = std::min(layout_.inputs, input_ + kBlockInputs);
    words_ = reinterpret_cast<const uint32_t*>(record + layout_.codes_offset() +
                                               input_ / per_chunk_ * 2 *
                                                   kPackedLineBytes);
    out_ = out;
  }

  bool finished() const { return input_ >= end_; }

  // A unit is a chunk of one tile.
  int64_t units_per_block() const { return kBlockInputs / per_chunk_ * 2; }

  void Advance(int64_t units) {
    for (; units > 0 && input_ < end_; --units) DecodeUnit();
  }

  void Finish() {
    while (input_ < end_) DecodeUnit();
  }

 private:
  HWY_INLINE void DecodeUnit() {
    const TileF32 d;
    if (input_ == group_end_ && tile_ == 0) {
      const int64_t group = input_ / layout_.group_size;
      group_end_ = std::min(end_, (group + 1) * layout_.group_size);
      for (int t = 0; t < 2; ++t) {
        scales_[t] = LoadScales(layout_, record_, group, t);
        zeros_[t] = hn::ConvertTo(d, LoadZeros(layout_, record_, group, t));
        minimums_[t] = LoadMinimums(layout_, record_, group, t);
      }
    }
    const DecodeArgs args = {words_ + tile_ * kTileOutputs, scales_[tile_],
                             zeros_[tile_], minimums_[tile_],
                             out_ + tile_ * kBF16TileBytes};
    if (per_chunk_ == 8) {
      DecodeWords</*kAsF32=*/false, 4>(args);
    } else {
      DecodeWords</*kAsF32=*/false, 8>(args);
    }
    tile_ ^= 1;
    if (tile_ != 0) return;
    words_ += 2 * kTileOutputs;
    out_ += per_chunk_ / 2 * kStepBytes;
    // The last chunk of a group may be cut short by the last input.
    input_ = std::min(input_ + per_chunk_, group_end_);
  }

  const PackedLayout layout_;
  const int64_t per_chunk_;
  const std::byte* record_ = nullptr;
  int64_t input_ = 0;  // of the next chunk
  int64_t end_ = 0;
  int64_t group_end_ = 0;
  int tile_ = 0;  // the next one
  const uint32_t* words_ = nullptr;
  std::byte* out_ = nullptr;
  VF scales_[2];
  VF zeros_[2];
  VF minimums_[2];
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_DECODE_INL_H_
