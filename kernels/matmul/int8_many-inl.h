// Products of many rows with int8 activations, once per Highway target: what
// all groups of rows need of a record is decoded once, a block of K at a time.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_MANY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_MANY_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_MANY_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_MANY_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/int8_decoded-inl.h"
#include "kernels/matmul/int8_dots-inl.h"
#include "kernels/matmul/int8_starts-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The zero point of codes that DecodeCodes has shifted: bytes 1 to 31.
inline constexpr int32_t kZeroOfShiftedCodes = 16;

// Inputs that many rows are multiplied with at a time, in whole groups: 6 rows
// of them take 12 KiB of L1, and the decoded codes of a record 64 KiB of L2.
inline constexpr int64_t kBlockInputsOfMany = 2048;

// In groups of up to so many inputs, all groups of rows read the record's f16
// scales; in longer ones, its scales decoded to f32, which take twice the room
// beside the activations in L1: 8 KiB for 2048 inputs at g32. Two threads on
// Zen 5, f16 against f32: 128 rows gain 2.3 points of the peak at g32, 2048
// rows lose 2 at g64; at g128 both are alike.
inline constexpr int64_t kInputsOfHalfScales = 32;

HWY_INLINE bool KeepsHalfScales(const PackedLayout& layout) {
  return !layout.wide_scales && layout.group_size <= kInputsOfHalfScales;
}

// Groups to a block, of equal size but for the last.
HWY_INLINE int64_t GroupsPerBlock(const PackedLayout& layout) {
  const int64_t most =
      std::max<int64_t>(1, kBlockInputsOfMany / layout.group_size);
  return CeilDiv(layout.groups(), CeilDiv(layout.groups(), most));
}

// A block of a record as all groups of rows read it.
struct ManyBlock {
  int64_t first_group, end_group;
  int64_t first_line, end_line;  // of codes, in the record
  const std::byte* scales;       // [groups][32], f16 or f32
  const int32_t* zeros;          // [groups][32], or null
  const uint8_t* codes;          // [quads][2 tiles][64 bytes]
};

// Bytes of the scales, or the zero points, of a block.
HWY_INLINE int64_t DecodedScaleBytes(const PackedLayout& layout) {
  return GroupsPerBlock(layout) * kRecordOutputs * 4;
}

// Bytes of the codes of a block.
HWY_INLINE int64_t DecodedCodeBytes(const PackedLayout& layout) {
  return CeilDiv(GroupsPerBlock(layout) * layout.group_size, 8) * 2 * 2 *
         kStepBytes;
}

// What the calls for one group of rows share.
struct ManyCall {
  DecodedArgs args;  // scales, starts and totals of the whole rows
  DecodedFunction multiply;
  int64_t rows;
};

HWY_INLINE int64_t ManyCallBytes(int64_t rows) {
  return CeilDiv(rows * static_cast<int64_t>(sizeof(ManyCall)), kStepBytes) *
         kStepBytes;
}

template <bool kNibbles>
HWY_INLINE int64_t ManyScratchBytes(const PackedLayout& layout, int64_t rows) {
  return StartBytes(layout, rows) + ManyCallBytes(rows) +
         2 * DecodedScaleBytes(layout) +
         (kNibbles ? DecodedCodeBytes(layout) : 0);
}

// Where a block's codes lie in a record of INT4 or int8.
HWY_INLINE void SetLines(const PackedLayout& layout, ManyBlock& block) {
  const int64_t inputs = layout.chunk_inputs();
  block.first_line = CeilDiv(block.first_group * layout.group_size, inputs);
  block.end_line = std::min(
      layout.chunks(), CeilDiv(block.end_group * layout.group_size, inputs));
}

// The scales of a block where they are, or decoded to `out`.
HWY_INLINE const std::byte* FindScales(const PackedLayout& layout,
                                       const std::byte* record,
                                       const ManyBlock& block, float* out) {
  if (KeepsHalfScales(layout)) {
    return record + block.first_group * kRecordOutputs * layout.scale_bytes();
  }
  const std::byte* const scales = reinterpret_cast<const std::byte*>(out);
  for (int64_t group = block.first_group; group < block.end_group; ++group) {
    NIBBLE_UNROLL
    for (int v = 0; v < kRecordVectors; ++v, out += kLanes) {
      hn::Store(LoadScales(layout, record, group, v), TileF32(), out);
    }
  }
  return scales;
}

HWY_INLINE void DecodeZeros(const PackedLayout& layout, const std::byte* record,
                            const ManyBlock& block, int32_t* out) {
  for (int64_t group = block.first_group; group < block.end_group; ++group) {
    NIBBLE_UNROLL
    for (int v = 0; v < kRecordVectors; ++v, out += kLanes) {
      hn::Store(LoadZeros(layout, record, group, v), TileI32(), out);
    }
  }
}

// Decodes INT4: the codes themselves, or where `shifted` zero points are to be
// taken out, code + 16 - zero, as `out` [quads][2 tiles][64 bytes].
HWY_INLINE void DecodeCodes(const PackedLayout& layout, const std::byte* record,
                            const ManyBlock& block, bool shifted,
                            uint8_t* out) {
  const TileU8 d;
  const TileI32 di;
  const hn::Repartition<uint16_t, TileU8> d16;
  const VU8 mask = hn::Set(d, 15);
  constexpr int64_t kLine = 2 * kStepBytes;
  const int64_t group_lines = CeilDiv(layout.group_size, 8);
  const uint8_t* codes =
      reinterpret_cast<const uint8_t*>(record) + layout.codes_offset();
  int64_t line = block.first_line;
  for (int64_t group = block.first_group; group < block.end_group; ++group) {
    VU8 shifts[kRecordVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kRecordVectors; ++v) {
      const VI32 shift = hn::Sub(hn::Set(di, kZeroOfShiftedCodes),
                                 LoadZeros(layout, record, group, v));
      shifts[v] = shifted
                      ? hn::BitCast(d, hn::Mul(shift, hn::Set(di, 0x01010101)))
                      : hn::Zero(d);
    }
    const int64_t end = std::min(block.end_line, line + group_lines);
    for (; line < end; ++line) {
      NIBBLE_UNROLL
      for (int v = 0; v < kRecordVectors; ++v) {
        const VU8 bytes = hn::Load(d, codes + line * kLine + v * kLanes * 4);
        const VU8 low = hn::And(bytes, mask);
        const VU8 high = hn::And(
            hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), mask);
        hn::Store(hn::Add(low, shifts[v]), d, out + v * kLanes * 4);
        hn::Store(hn::Add(high, shifts[v]), d, out + kLine + v * kLanes * 4);
      }
      out += 2 * kLine;
    }
  }
}

template <class Dot, class Scale>
DecodedFunction FindManyFunction(bool zeros_differ, int64_t rows) {
  constexpr bool kZeros = std::is_same_v<Dot, MaddubsDot>;
  return kZeros && zeros_differ ? FindDecodedFunction<Dot, kZeros, Scale>(rows)
                                : FindDecodedFunction<Dot, false, Scale>(rows);
}

// In `memory` of ManyCallBytes(). Computed once: the divisions in it would take
// a tenth of a call's time.
template <class Dot>
ManyCall* MakeManyCalls(const Product& p, const Starts& starts,
                        const Totals& totals, std::byte* memory) {
  const PackedLayout& layout = *p.layout;
  const RowGroups& groups = p.panel.groups;
  const auto find_function = KeepsHalfScales(layout)
                                 ? &FindManyFunction<Dot, hwy::float16_t>
                                 : &FindManyFunction<Dot, float>;
  ManyCall* const calls = reinterpret_cast<ManyCall*>(memory);
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t row = groups.Begin(group);
    ManyCall& call = calls[group];
    call.rows = groups.Size(group);
    call.multiply = find_function(starts.zeros_differ, call.rows);
    DecodedArgs& args = call.args;
    args.group_quads = CeilDiv(layout.group_size, 4);
    args.panel = reinterpret_cast<const int8_t*>(p.panel.values) +
                 row * Int8BlocksFor(layout.inputs) * kInt8BlockInputs;
    args.scales = p.panel.scales + row * layout.groups();
    args.starts = starts.values + row * layout.groups();
    args.totals = totals.data + row * totals.stride;
    args.total_stride = totals.stride;
  }
  return calls;
}

// One block of one record with all groups of rows, whose totals are
// `total_offset` floats on. Each of them brings in its share of the
// `prefetch_bytes` that come next.
HWY_INLINE void MultiplyBlock(const PackedLayout& layout,
                              const ManyBlock& block, ManyCall* calls,
                              int64_t count, int64_t total_offset,
                              const uint8_t* prefetch, int64_t prefetch_bytes) {
  const int64_t line_quads = layout.chunk_inputs() / 4;
  const int64_t lines = CeilDiv(prefetch_bytes, count * kStepBytes);
  for (int64_t i = 0; i < count; ++i) {
    const ManyCall& call = calls[i];
    DecodedArgs args = call.args;
    args.codes = block.codes;
    args.weight_scales = block.scales;
    args.zeros = block.zeros;
    args.first_quad = block.first_line * line_quads;
    args.end_quad =
        std::min(CeilDiv(layout.inputs, 4), block.end_line * line_quads);
    args.scales += block.first_group * call.rows;
    args.starts += block.first_group * call.rows;
    args.totals += total_offset;
    args.first_block = block.first_group == 0;
    args.prefetch = prefetch;
    prefetch += lines * kStepBytes;
    args.prefetch_end = prefetch;
    args.prefetch_lines = CeilDiv(lines, block.end_group - block.first_group);
    call.multiply(args);
  }
}

// In each block of K, the decoded codes of one record meet all groups of rows.
template <class Dot, bool kNibbles>
void MultiplyMany(const Product& p, int64_t first, int64_t end, Totals totals,
                  std::byte* scratch) {
  const PackedLayout& layout = *p.layout;
  const RowGroups& groups = p.panel.groups;
  // 16-bit sums have no room for codes up to 31.
  const bool shifted =
      kNibbles && layout.has_zeros() && !std::is_same_v<Dot, MaddubsDot>;
  const bool zeros_differ = layout.has_zeros() && !shifted;
  const Starts starts =
      MakeStarts(p, shifted ? kZeroOfShiftedCodes : ZeroOf<Dot>(layout),
                 zeros_differ, scratch);
  scratch += StartBytes(layout, groups.rows);
  ManyCall* const calls = MakeManyCalls<Dot>(p, starts, totals, scratch);
  scratch += ManyCallBytes(groups.rows);
  ManyBlock block;
  float* const scales = reinterpret_cast<float*>(scratch);
  scratch += DecodedScaleBytes(layout);
  int32_t* const zeros = reinterpret_cast<int32_t*>(scratch);
  block.zeros = zeros_differ ? zeros : nullptr;
  scratch += DecodedScaleBytes(layout);
  uint8_t* const decoded = reinterpret_cast<uint8_t*>(scratch);
  constexpr int64_t kLine = 2 * kStepBytes;
  const int64_t record_bytes = layout.record_bytes();
  const int64_t block_groups = GroupsPerBlock(layout);
  for (int64_t g = 0; g < layout.groups(); g += block_groups) {
    block.first_group = g;
    block.end_group = std::min(layout.groups(), g + block_groups);
    SetLines(layout, block);
    const int64_t bytes = (block.end_line - block.first_line) * kLine;
    // After the last record, the next block of the first, or the next call.
    const int64_t last_step = block.end_group < layout.groups()
                                  ? bytes - (end - 1 - first) * record_bytes
                                  : record_bytes - block.first_line * kLine;
    for (int64_t record = first; record < end; ++record) {
      const std::byte* at = p.weights + record * record_bytes;
      const uint8_t* codes = reinterpret_cast<const uint8_t*>(at) +
                             layout.codes_offset() + block.first_line * kLine;
      block.scales = FindScales(layout, at, block, scales);
      if (zeros_differ) DecodeZeros(layout, at, block, zeros);
      block.codes = kNibbles ? decoded : codes;
      if constexpr (kNibbles) {
        DecodeCodes(layout, at, block, shifted, decoded);
      }
      MultiplyBlock(
          layout, block, calls, groups.count, (record - first) * kRecordOutputs,
          codes + (record + 1 < end ? record_bytes : last_step), bytes);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_MANY_INL_H_
