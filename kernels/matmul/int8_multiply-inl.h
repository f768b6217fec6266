// Products of integer weights with int8 activations, once per Highway target.
//
// Few rows read nibbles from the record; for many rows it is decoded once into
// bytes, [K / 4][2 tiles][64 bytes], which is also how int8 weights are stored.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/matmul/int8_dots-inl.h"
#include "kernels/matmul/int8_groups-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The zero point of codes that DecodeCodes has shifted: bytes 1 to 31.
inline constexpr int32_t kZeroOfShiftedCodes = 16;

// Records of one call, which a group of rows meets while it is in L1.
inline constexpr int64_t kInt8RecordsPerCall = 4;

// Bytes that the prefetches run ahead of the codes. One row, two threads on Zen
// 5, of 2, 4, 6, 8 and 16 KiB: 90, 95, 96, 93 and 87% of the bandwidth of a
// plain read at g128 and 86, 92, 96, 93 and 92% at g32, when the machine gave
// 80 GB/s; 97 to 100% from 2 KiB on when it gave 48; without any, 83%.
inline constexpr int64_t kPrefetchBytes = 6144;

// Lines to prefetch with every 32 inputs, where `passes` share a record.
HWY_INLINE int64_t PrefetchLines(const PackedLayout& layout, int64_t passes) {
  return CeilDiv(layout.record_bytes() * kGroupSizeUnit,
                 layout.inputs * kStepBytes * passes);
}

// A walk through the record at a constant distance: the lines of codes of 32
// inputs, and with each group its scales and zero points.
HWY_INLINE void PrefetchAlong(const PackedLayout& layout, GroupArgs& args) {
  args.prefetch_lines = 2 * kGroupSizeUnit / layout.chunk_inputs();
  args.prefetch_group_bytes = layout.codes_offset() / layout.groups();
}

// Where sums start, for all rows and groups.
struct Starts {
  const int32_t* values;
  bool zeros_differ;
};

HWY_INLINE int64_t StartBytes(const PackedLayout& layout, int64_t rows) {
  return CeilDiv(rows * layout.groups() * 4, kStepBytes) * kStepBytes;
}

// -zero * sums, in `memory` of StartBytes(); the panel's minus sums if the zero
// points differ.
HWY_INLINE Starts MakeStarts(const Product& p, int32_t zero, bool zeros_differ,
                             std::byte* memory) {
  if (zeros_differ) return {p.panel.minus_sums, true};
  int32_t* const values = reinterpret_cast<int32_t*>(memory);
  const int64_t count = p.panel.groups.rows * p.layout->groups();
  const hn::ScalableTag<int32_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < count; i += lanes) {  // both are whole lines
    hn::Store(hn::Mul(hn::Set(d, zero), hn::Load(d, p.panel.minus_sums + i)), d,
              values + i);
  }
  return {values, false};
}

template <class Dot>
HWY_INLINE int32_t ZeroOf(const PackedLayout& layout) {
  return Dot::kSignedCodes ? 0 : static_cast<int32_t>(layout.symmetric_zero());
}

// What all calls for one group of rows share.
HWY_INLINE GroupArgs ArgsOfRows(const Product& p, int64_t group,
                                const Starts& starts, const Totals& totals) {
  const int64_t row = p.panel.groups.Begin(group);
  GroupArgs args;
  args.layout = p.layout;
  args.panel = reinterpret_cast<const int8_t*>(p.panel.values) +
               row * Int8BlocksFor(p.layout->inputs) * kInt8BlockInputs;
  args.scales = p.panel.scales + row * p.layout->groups();
  args.starts = starts.values + row * p.layout->groups();
  args.zeros_differ = starts.zeros_differ;
  args.totals = totals.data + row * totals.stride;
  args.total_stride = totals.stride;
  args.prefetch_group_bytes = 0;
  return args;
}

// The calls for one group of rows, which differ in where weights and totals
// are.
struct RowCall {
  GroupArgs args;
  GroupFunction multiply;
};

HWY_INLINE int64_t CallBytes(int64_t rows) {
  return CeilDiv(rows * static_cast<int64_t>(sizeof(RowCall)), kStepBytes) *
         kStepBytes;
}

// In `memory` of CallBytes(). Computed once: the divisions in it would take a
// tenth of a call's time.
template <class Dot, bool kNibbles, int kFirst>
RowCall* MakeCalls(const Product& p, const Starts& starts, const Totals& totals,
                   std::byte* memory) {
  const RowGroups& groups = p.panel.groups;
  RowCall* const calls = reinterpret_cast<RowCall*>(memory);
  for (int64_t rows = 0; rows < groups.count; ++rows) {
    GroupArgs args = ArgsOfRows(p, rows, starts, totals);
    if (groups.count == 1) {
      PrefetchAlong(*p.layout, args);
    } else {
      args.prefetch_lines = PrefetchLines(*p.layout, groups.count);
    }
    calls[rows] = {args,
                   FindGroupFunction<Dot, kNibbles, kFirst>(groups.Size(rows))};
  }
  return calls;
}

// Few groups of rows, for each of which the nibbles are decoded in the inner
// loop: the first reads a record, the others find it in the cache. With one
// group the prefetches walk linearly through the record and on through the
// scales and zero points of the next one; with several, each brings in its
// share of the next record.
template <class Dot, bool kNibbles>
void MultiplyFew(const Product& p, int64_t first, int64_t end, Totals totals,
                 std::byte* scratch) {
  const PackedLayout& layout = *p.layout;
  const int64_t count = p.panel.groups.count;
  const Starts starts =
      MakeStarts(p, ZeroOf<Dot>(layout), layout.has_zeros(), scratch);
  RowCall* const calls = MakeCalls<Dot, kNibbles, 1>(
      p, starts, totals, scratch + StartBytes(layout, p.panel.groups.rows));
  const int64_t groups = layout.groups();
  const int64_t record_bytes = layout.record_bytes();
  const int64_t codes_offset = layout.codes_offset();
  const int64_t slice = count == 1 ? record_bytes : record_bytes / count;
  const uint8_t* at =
      reinterpret_cast<const uint8_t*>(p.weights) + first * record_bytes;
  for (int64_t record = first; record < end; ++record, at += record_bytes) {
    const uint8_t* prefetch =
        at + (count == 1 ? codes_offset + kPrefetchBytes : record_bytes);
    for (int64_t rows = 0; rows < count; ++rows) {
      GroupArgs& args = calls[rows].args;
      args.first_group = 0;
      args.end_group = groups;
      args.record = reinterpret_cast<const std::byte*>(at);
      args.codes = at + codes_offset;
      args.prefetch = prefetch;
      prefetch += slice;
      args.prefetch_end = prefetch;
      calls[rows].multiply(args);
      args.totals += kRecordOutputs;
    }
  }
}

// Decodes groups [first_group, end_group) of a record into bytes,
// [quads][2 tiles][64]: the codes themselves, or where `shifted` zero points
// are to be taken out, code + 16 - zero.
HWY_INLINE void DecodeCodes(const PackedLayout& layout, const std::byte* record,
                            int64_t first_group, int64_t end_group,
                            bool shifted, uint8_t* out) {
  const TileU8 d;
  const TileI32 di;
  const hn::Repartition<uint16_t, TileU8> d16;
  const VU8 mask = hn::Set(d, 15);
  constexpr int64_t kLine = 2 * kStepBytes;
  const int64_t group_lines = CeilDiv(layout.group_size, 8);
  const uint8_t* codes =
      reinterpret_cast<const uint8_t*>(record) + layout.codes_offset();
  for (int64_t group = first_group; group < end_group; ++group) {
    VU8 shifts[kRecordVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kRecordVectors; ++v) {
      const VI32 shift = hn::Sub(hn::Set(di, kZeroOfShiftedCodes),
                                 LoadZeros(layout, record, group, v));
      shifts[v] = shifted
                      ? hn::BitCast(d, hn::Mul(shift, hn::Set(di, 0x01010101)))
                      : hn::Zero(d);
    }
    const int64_t end = std::min(layout.chunks(), (group + 1) * group_lines);
    for (int64_t line = group * group_lines; line < end; ++line) {
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

// Inputs that many rows are multiplied with at a time, in whole groups: 12 rows
// of them take 24 KiB of L1, and the decoded codes of a record 64 KiB of L2.
inline constexpr int64_t kBlockInputsOfMany = 2048;

// Groups to a block, of equal size but for the last.
HWY_INLINE int64_t GroupsPerBlock(const PackedLayout& layout) {
  const int64_t most =
      std::max<int64_t>(1, kBlockInputsOfMany / layout.group_size);
  return CeilDiv(layout.groups(), CeilDiv(layout.groups(), most));
}

// Bytes that the decoded codes of one record take in a block.
HWY_INLINE int64_t DecodedBytes(const PackedLayout& layout) {
  return CeilDiv(GroupsPerBlock(layout) * layout.group_size, 8) * 2 * 2 *
         kStepBytes;
}

// Several groups of rows. In each block of K, the decoded codes of one record,
// staying in L1, meet all groups of rows.
template <class Dot, bool kNibbles>
void MultiplyMany(const Product& p, int64_t first, int64_t end, Totals totals,
                  std::byte* scratch) {
  const PackedLayout& layout = *p.layout;
  const RowGroups& groups = p.panel.groups;
  // 16-bit sums have no room for codes up to 31.
  const bool shifted =
      kNibbles && layout.has_zeros() && !std::is_same_v<Dot, MaddubsDot>;
  const Starts starts =
      MakeStarts(p, shifted ? kZeroOfShiftedCodes : ZeroOf<Dot>(layout),
                 layout.has_zeros() && !shifted, scratch);
  RowCall* const calls = MakeCalls<Dot, false, kMinDecodedRows<Dot>>(
      p, starts, totals, scratch + StartBytes(layout, groups.rows));
  const int64_t block_groups = GroupsPerBlock(layout);
  const int64_t line_inputs = layout.chunk_inputs();
  uint8_t* const decoded = reinterpret_cast<uint8_t*>(
      scratch + StartBytes(layout, groups.rows) + CallBytes(groups.rows));
  for (int64_t g = 0; g < layout.groups(); g += block_groups) {
    const int64_t g_end = std::min(layout.groups(), g + block_groups);
    const int64_t first_line = CeilDiv(g * layout.group_size, line_inputs);
    const int64_t end_line = std::min(
        layout.chunks(), CeilDiv(g_end * layout.group_size, line_inputs));
    // What follows these codes, in the record or in that of the next call.
    const int64_t block_bytes = (end_line - first_line) * 2 * kStepBytes;
    const int64_t next = g_end < layout.groups()
                             ? block_bytes
                             : (end - first) * layout.record_bytes() -
                                   first_line * 2 * kStepBytes;
    // Each group of rows brings in its share.
    const int64_t slice =
        CeilDiv(block_bytes, groups.count * kStepBytes) * kStepBytes;
    for (int64_t record = first; record < end; ++record) {
      const std::byte* at = p.weights + record * layout.record_bytes();
      const uint8_t* codes = reinterpret_cast<const uint8_t*>(at) +
                             layout.codes_offset() +
                             first_line * 2 * kStepBytes;
      const uint8_t* prefetch = codes + next;
      if constexpr (kNibbles) {
        DecodeCodes(layout, at, g, g_end, shifted, decoded);
        codes = decoded;
      }
      for (int64_t rows = 0; rows < groups.count; ++rows) {
        GroupArgs& args = calls[rows].args;
        args.first_group = g;
        args.end_group = g_end;
        args.record = at;
        args.codes = codes;
        args.prefetch = prefetch;
        prefetch += slice;
        args.prefetch_end = prefetch;
        calls[rows].multiply(args);
        args.totals += kRecordOutputs;
      }
    }
    for (int64_t rows = 0; rows < groups.count; ++rows) {
      calls[rows].args.totals -= (end - first) * kRecordOutputs;
    }
  }
}

template <class Dot, bool kNibbles>
void MultiplyInt8(const Product& p, int64_t first, int64_t end, Totals totals,
                  std::byte* scratch) {
  const int64_t rows = p.panel.groups.rows;
  if (rows <= kFewRows<Dot>) {
    MultiplyFew<Dot, kNibbles>(p, first, end, totals, scratch);
  } else {
    MultiplyMany<Dot, kNibbles>(p, first, end, totals, scratch);
  }
}

// What the table lists of this target.
template <class Dot, bool kNibbles>
struct Int8Kernel {
  static constexpr int64_t kRows = Dot::kMaxRows;
  static constexpr MultiplyFunction kMultiply = &MultiplyInt8<Dot, kNibbles>;
  static int64_t Scratch(const PackedLayout& layout, int64_t rows) {
    const bool decodes = kNibbles && rows > kFewRows<Dot>;
    return StartBytes(layout, rows) + CallBytes(rows) +
           (decodes ? DecodedBytes(layout) : 0);
  }
};
using Int4Vnni = Int8Kernel<VnniDot, true>;
using Int8Vnni = Int8Kernel<VnniDot, false>;
using Int4Maddubs = Int8Kernel<MaddubsDot, true>;
using Int8Maddubs = Int8Kernel<SignedMaddubsDot, false>;

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
