// Products of integer weights with int8 activations, once per Highway target.
//
// Few rows read nibbles from the record; for many rows it is decoded once
// (int8_many-inl.h).
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

#include "hwy/highway.h"
#include "kernels/matmul/int8_dots-inl.h"
#include "kernels/matmul/int8_groups-inl.h"
#include "kernels/matmul/int8_many-inl.h"
#include "kernels/matmul/int8_starts-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

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
template <class Dot, bool kNibbles>
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
                   FindGroupFunction<Dot, kNibbles, 1>(groups.Size(rows))};
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
  RowCall* const calls = MakeCalls<Dot, kNibbles>(
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
    return rows <= kFewRows<Dot> ? StartBytes(layout, rows) + CallBytes(rows)
                                 : ManyScratchBytes<kNibbles>(layout, rows);
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
