// Products of integer weights with int8 activations, once per Highway target.
//
// MultiplyGroups<> is the inner loop: `kRows` rows times one record of 32
// outputs. In each group of K it sums in int32, then adds to the totals:
//
//   total = fma(float(sum), weight_scale * activation_scale, total)
//
// sum = sum_k (code - zero) * value starts at -zero * sum_k value, and then
// takes the codes as they are, unsigned. A policy, the Dot, says how four codes
// meet four values. Few rows read nibbles from the record; for many rows it is
// decoded once into bytes, [K / 4][2 tiles][64 bytes], which is also how int8
// weights are stored.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The same outputs as one TileF32, as bytes, pairs and sums.
using TileI32 = hn::RebindToSigned<TileF32>;
using TileI16 = hn::Repartition<int16_t, TileF32>;
using TileI8 = hn::Repartition<int8_t, TileF32>;
using TileU8 = hn::Repartition<uint8_t, TileF32>;
using VI32 = hn::Vec<TileI32>;
using VI16 = hn::Vec<TileI16>;
using VI8 = hn::Vec<TileI8>;
using VU8 = hn::Vec<TileU8>;
inline constexpr int kRecordVectors = 2 * kVectorsPerTile;

// The register budget, as in multiply-inl.h.
#if HWY_CAP_GE512
inline constexpr int kMaxRows = 12;
// Above it, decoding once and reading bytes from L2 is faster than decoding in
// the inner loop (docs/kernels.md).
inline constexpr int kFewRows = 8;
// Groups of rows where there are more: 13 rows are 7 and 6.
inline constexpr int kMinDecodedRows = 6;
#else
inline constexpr int kMaxRows = 6;
inline constexpr int kFewRows = 6;
inline constexpr int kMinDecodedRows = 3;
#endif

// Vectors of a record that are summed together: all, unless the registers are
// few.
constexpr int VectorsTogether(int rows) {
  return HWY_CAP_GE512 || rows > 2 ? 2 : 4;
}

// A Dot has
//   kSegmentQuads  quads after which Fold() must be called
//   kSignedCodes   Add() takes code - 128 of int8 weights, so zero is 0
//   Sum            one vector of sums
//   Start(v)       a Sum of v
//   Add(w, a, s)   s += w . a, quads of bytes
//   Fold(s)        makes room for another segment
//   Value(s)       the sums, after Fold()

// VPDPBUSD of AVX512_VNNI and AVX-VNNI. In assembly, because Highway's first
// target that has it demands half a dozen other extensions, which Cascade Lake
// lacks, and none has AVX-VNNI.
struct VnniDot {
  static constexpr int64_t kSegmentQuads = 16;
  static constexpr bool kSignedCodes = false;
  using Sum = VI32;
  static HWY_INLINE Sum Start(VI32 v) { return v; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
#if HWY_CAP_GE512
    asm("vpdpbusd %2, %1, %0" : "+v"(s.raw) : "v"(w.raw), "v"(a.raw));
#else
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(s.raw) : "x"(w.raw), "x"(a.raw));
#endif
  }
  static HWY_INLINE void Fold(Sum&) {}
  static HWY_INLINE VI32 Value(const Sum& s) { return s; }
};

// VPMADDUBSW for codes of 4 bits: eight of its results, at most
// 2 * 15 * 127 = 3810 each, are summed in 16 bits.
struct MaddubsDot {
  static constexpr int64_t kSegmentQuads = 8;
  static constexpr bool kSignedCodes = false;
  struct Sum {
    VI32 total;
    VI16 part;
  };
  static HWY_INLINE Sum Start(VI32 v) { return {v, hn::Zero(TileI16())}; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
    s.part = hn::Add(s.part, hn::SatWidenMulPairwiseAdd(TileI16(), w, a));
  }
  static HWY_INLINE void Fold(Sum& s) {
    s.total = hn::Add(s.total, hn::WidenMulPairwiseAdd(TileI32(), s.part,
                                                       hn::Set(TileI16(), 1)));
    s.part = hn::Zero(TileI16());
  }
  static HWY_INLINE VI32 Value(const Sum& s) { return s.total; }
};
static_assert(MaddubsDot::kSegmentQuads * 2 * 15 * 127 < 32768);

// The same for codes of 8 bits. Of unsigned ones VPMADDUBSW would saturate; so
// |w|, up to 128, meets the value with the sign of w: 2 * 128 * 127 = 32512.
struct SignedMaddubsDot {
  static constexpr int64_t kSegmentQuads = 16;
  static constexpr bool kSignedCodes = true;
  using Sum = VI32;
  static HWY_INLINE Sum Start(VI32 v) { return v; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
    const VI8 weight = hn::BitCast(TileI8(), w);
    const VI16 pairs = hn::SatWidenMulPairwiseAdd(
        TileI16(), hn::BitCast(TileU8(), hn::Abs(weight)),
        hn::IfNegativeThenNegOrUndefIfZero(weight, a));
    s = hn::Add(
        s, hn::WidenMulPairwiseAdd(TileI32(), pairs, hn::Set(TileI16(), 1)));
  }
  static HWY_INLINE void Fold(Sum&) {}
  static HWY_INLINE VI32 Value(const Sum& s) { return s; }
};

// The zero point of codes that DecodeCodes has shifted: bytes 1 to 31.
inline constexpr int32_t kZeroOfShiftedCodes = 16;

// Records of one call, which a group of rows meets while it is in L1.
inline constexpr int64_t kInt8RecordsPerCall = 4;

// One call of the inner loop: some groups of K of one record, for one group of
// rows.
struct GroupArgs {
  const PackedLayout* layout;
  const std::byte* record;  // its scales, and zero points unless `zero` >= 0
  const uint8_t* codes;     // of the first group
  int32_t zero;             // of all groups, or negative
  int64_t first_group;
  int64_t end_group;
  const int8_t* panel;        // of the group of rows, from k = 0
  const float* scales;        // [groups][rows]
  const int32_t* minus_sums;  // [groups][rows]
  float* totals;              // row r, output i at r * total_stride + i
  int64_t total_stride;
  // Brings in what comes next: so many bytes in each segment of 16 quads.
  const uint8_t* prefetch;
  int64_t prefetch_step;
};

template <class Dot, bool kNibbles>
struct Weights {
  // Quads that one line of 64 bytes holds.
  static constexpr int kQuads = kNibbles ? 2 : 1;

  static HWY_INLINE void Load(const uint8_t* line, VU8 (&quads)[kQuads]) {
    const TileU8 d;
    const VU8 bytes = hn::Load(d, line);
    if constexpr (kNibbles) {
      const hn::Repartition<uint16_t, TileU8> d16;
      const VU8 mask = hn::Set(d, 15);
      quads[0] = hn::And(bytes, mask);
      quads[1] = hn::And(
          hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), mask);
    } else if constexpr (Dot::kSignedCodes) {
      quads[0] = hn::Xor(bytes, hn::Set(d, 0x80));
    } else {
      quads[0] = bytes;
    }
  }
};

// Where each sum of a group starts: -zero * sum of the row's values.
template <class Dot, int kRows, int kVectors>
HWY_INLINE void StartSums(const GroupArgs& args, int64_t group, int vector,
                          typename Dot::Sum (&sums)[kRows][kVectors]) {
  const TileI32 d;
  const int32_t* minus_sums = args.minus_sums + group * kRows;
  if (args.zero >= 0) {
    const VI32 zero = hn::Set(d, args.zero);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VI32 start = hn::Mul(hn::Set(d, minus_sums[r]), zero);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Dot::Start(start);
    }
    return;
  }
  NIBBLE_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const VI32 zeros = LoadZeros(*args.layout, args.record, group, vector + v);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      sums[r][v] = Dot::Start(hn::Mul(hn::Set(d, minus_sums[r]), zeros));
    }
  }
}

// Adds a group's sums to the totals.
template <class Dot, int kRows, int kVectors>
HWY_INLINE void AddToTotals(const GroupArgs& args, int64_t group, int vector,
                            const typename Dot::Sum (&sums)[kRows][kVectors]) {
  const TileF32 d;
  const float* scales = args.scales + group * kRows;
  float* const totals = args.totals + vector * kLanes;
  VF weight_scales[kVectors];
  NIBBLE_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    weight_scales[v] = LoadScales(*args.layout, args.record, group, vector + v);
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const VF scale = hn::Set(d, scales[r]);
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* total = totals + r * args.total_stride + v * kLanes;
      const VF sum = hn::ConvertTo(d, Dot::Value(sums[r][v]));
      hn::Store(
          hn::MulAdd(sum, hn::Mul(weight_scales[v], scale), hn::Load(d, total)),
          d, total);
    }
  }
}

HWY_INLINE void ZeroTotals(const GroupArgs& args, int64_t rows) {
  const TileF32 d;
  for (int64_t r = 0; r < rows; ++r) {
    for (int v = 0; v < kRecordVectors; ++v) {
      hn::Store(hn::Zero(d), d,
                args.totals + r * args.total_stride + v * kLanes);
    }
  }
}

template <class Dot, bool kNibbles, int kRows>
void MultiplyGroups(const GroupArgs& call) {
  constexpr int kVectors = VectorsTogether(kRows);
  constexpr int kQuads = Weights<Dot, kNibbles>::kQuads;
  constexpr int64_t kLine = 2 * kStepBytes;  // of both tiles
  constexpr int64_t kBlockQuads = kInt8BlockInputs / 4;
  // Copied, because stores to the totals could change the call for all the
  // compiler knows.
  const GroupArgs args = call;
  if (args.first_group == 0) ZeroTotals(args, kRows);
  const int64_t group_quads = CeilDiv(args.layout->group_size, 4);
  const int64_t all_quads = CeilDiv(args.layout->inputs, 4 * kQuads) * kQuads;
  const int64_t origin = args.first_group * group_quads;
  const uint8_t* prefetch = args.prefetch;
  const uint8_t* prefetch_to = prefetch;
  for (int64_t group = args.first_group; group < args.end_group; ++group) {
    const int64_t begin = group * group_quads;
    const int64_t end = std::min(all_quads, begin + group_quads);
    for (int vector = 0; vector < kRecordVectors; vector += kVectors) {
      typename Dot::Sum sums[kRows][kVectors];
      StartSums<Dot, kRows, kVectors>(args, group, vector, sums);
      for (int64_t quad = begin; quad < end;) {
        const int64_t segment_end =
            std::min(end, (quad / Dot::kSegmentQuads + 1) * Dot::kSegmentQuads);
        const uint8_t* line =
            args.codes + (quad - origin) / kQuads * kLine + vector * kLanes * 4;
        const int32_t* values =
            reinterpret_cast<const int32_t*>(
                args.panel + quad / kBlockQuads * kRows * kInt8BlockInputs) +
            quad % kBlockQuads;
        if (vector == 0) {
          prefetch_to += args.prefetch_step * (segment_end - quad) / 16;
          for (; prefetch < prefetch_to; prefetch += kStepBytes) {
            __builtin_prefetch(prefetch, 0, kRows <= kFewRows ? 3 : 2);
          }
        }
        for (; quad < segment_end; quad += kQuads) {
          VU8 weights[kVectors][kQuads];
          NIBBLE_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            Weights<Dot, kNibbles>::Load(line + v * kLanes * 4, weights[v]);
          }
          NIBBLE_UNROLL
          for (int q = 0; q < kQuads; ++q) {
            NIBBLE_UNROLL
            for (int r = 0; r < kRows; ++r) {
              const VI8 a = hn::BitCast(
                  TileI8(),
                  hn::Set(TileI32(), values[r * kInt8BlockInputs / 4 + q]));
              NIBBLE_UNROLL
              for (int v = 0; v < kVectors; ++v) {
                Dot::Add(weights[v][q], a, sums[r][v]);
              }
            }
          }
          line += kLine;
          values += kQuads;
        }
        NIBBLE_UNROLL
        for (int r = 0; r < kRows; ++r) {
          NIBBLE_UNROLL
          for (int v = 0; v < kVectors; ++v) Dot::Fold(sums[r][v]);
        }
      }
      AddToTotals<Dot, kRows, kVectors>(args, group, vector, sums);
    }
  }
}

using GroupFunction = void (*)(const GroupArgs&);

// MultiplyGroups of kFirst, kFirst + 1, ... rows.
template <class Dot, bool kNibbles, int kFirst, int... kOffsets>
constexpr std::array<GroupFunction, sizeof...(kOffsets)> GroupFunctions(
    std::integer_sequence<int, kOffsets...>) {
  return {&MultiplyGroups<Dot, kNibbles, kFirst + kOffsets>...};
}

template <class Dot, bool kNibbles, int kFirst, int kLast>
HWY_INLINE GroupFunction FindGroupFunction(int64_t rows) {
  static constexpr auto kFunctions = GroupFunctions<Dot, kNibbles, kFirst>(
      std::make_integer_sequence<int, kLast - kFirst + 1>());
  return kFunctions[static_cast<size_t>(rows - kFirst)];
}

// What all calls for one group of rows share.
HWY_INLINE GroupArgs ArgsOfRows(const Product& p, int64_t group,
                                const Totals& totals) {
  const int64_t row = p.panel.groups.Begin(group);
  GroupArgs args;
  args.layout = p.layout;
  args.panel = reinterpret_cast<const int8_t*>(p.panel.values) +
               row * Int8BlocksFor(p.layout->inputs) * kInt8BlockInputs;
  args.scales = p.panel.scales + row * p.layout->groups();
  args.minus_sums = p.panel.minus_sums + row * p.layout->groups();
  args.totals = totals.data + row * totals.stride;
  args.total_stride = totals.stride;
  return args;
}

// Bytes that the prefetches run ahead of the codes. One row, g128, of 0, 1, 2,
// 3, 4, 6 and 8 KiB: 83, 95, 97, 96, 100, 102 and 100% of the bandwidth of a
// plain read; without any, 83%.
inline constexpr int64_t kPrefetchBytes = 4096;

// One group of rows: each record is read once, front to back. The prefetches
// walk linearly through it, scales and zero points of the next one included.
template <class Dot, bool kNibbles>
void MultiplyFew(const Product& p, int64_t first, int64_t end, Totals totals) {
  const PackedLayout& layout = *p.layout;
  const GroupFunction multiply =
      FindGroupFunction<Dot, kNibbles, 1, kFewRows>(p.panel.groups.rows);
  GroupArgs args = ArgsOfRows(p, 0, totals);
  args.zero = layout.has_zeros() ? -1
              : Dot::kSignedCodes
                  ? 0
                  : static_cast<int32_t>(layout.symmetric_zero());
  args.first_group = 0;
  args.end_group = layout.groups();
  args.prefetch_step =
      CeilDiv(layout.record_bytes() * kInt8BlockInputs, layout.inputs);
  for (int64_t record = first; record < end; ++record) {
    args.record = p.weights + record * layout.record_bytes();
    args.codes =
        reinterpret_cast<const uint8_t*>(args.record) + layout.codes_offset();
    args.prefetch = args.codes + kPrefetchBytes;
    args.totals = totals.data + (record - first) * kRecordOutputs;
    multiply(args);
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

// Several groups of rows. In each block of K, every group of rows, staying in
// L1, meets the records of the call, staying in L2.
template <class Dot, bool kNibbles>
void MultiplyMany(const Product& p, int64_t first, int64_t end, Totals totals,
                  std::byte* scratch) {
  const PackedLayout& layout = *p.layout;
  const RowGroups& groups = p.panel.groups;
  const bool shifted = kNibbles && layout.has_zeros() && Dot::kSegmentQuads > 8;
  const int64_t block_groups = GroupsPerBlock(layout);
  const int64_t decoded_bytes = kNibbles ? DecodedBytes(layout) : 0;
  const int64_t line_inputs = layout.chunk_inputs();
  uint8_t* const decoded = reinterpret_cast<uint8_t*>(scratch);
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
    for (int64_t record = first; kNibbles && record < end; ++record) {
      DecodeCodes(layout, p.weights + record * layout.record_bytes(), g, g_end,
                  shifted, decoded + (record - first) * decoded_bytes);
    }
    for (int64_t rows = 0; rows < groups.count; ++rows) {
      GroupArgs args = ArgsOfRows(p, rows, totals);
      args.zero = Dot::kSignedCodes ? 0
                  : shifted         ? kZeroOfShiftedCodes
                  : layout.has_zeros()
                      ? -1
                      : static_cast<int32_t>(layout.symmetric_zero());
      args.first_group = g;
      args.end_group = g_end;
      // Each group of rows brings in its share.
      args.prefetch_step = CeilDiv(layout.record_bytes() * kInt8BlockInputs,
                                   layout.inputs * groups.count);
      const GroupFunction multiply =
          FindGroupFunction<Dot, false, kMinDecodedRows, kMaxRows>(
              groups.Size(rows));
      for (int64_t record = first; record < end; ++record) {
        args.record = p.weights + record * layout.record_bytes();
        const uint8_t* codes = reinterpret_cast<const uint8_t*>(args.record) +
                               layout.codes_offset() +
                               first_line * 2 * kStepBytes;
        args.codes =
            kNibbles ? decoded + (record - first) * decoded_bytes : codes;
        args.prefetch = codes + next + block_bytes * rows / groups.count;
        multiply(args);
        args.totals += kRecordOutputs;
      }
    }
  }
}

template <class Dot, bool kNibbles>
void MultiplyInt8(const Product& p, int64_t first, int64_t end, Totals totals,
                  std::byte* scratch) {
  const int64_t rows = p.panel.groups.rows;
  if (rows <= kFewRows) {
    MultiplyFew<Dot, kNibbles>(p, first, end, totals);
  } else {
    MultiplyMany<Dot, kNibbles>(p, first, end, totals, scratch);
  }
}

// What the table lists of this target.
struct Int8Kernels {
  static constexpr int64_t kRows = kMaxRows;
  static int64_t Int4Scratch(const PackedLayout& layout, int64_t rows) {
    return rows <= kFewRows ? 0 : kInt8RecordsPerCall * DecodedBytes(layout);
  }
  static constexpr MultiplyFunction kInt4Vnni = &MultiplyInt8<VnniDot, true>;
  static constexpr MultiplyFunction kInt8Vnni = &MultiplyInt8<VnniDot, false>;
  static constexpr MultiplyFunction kInt4 = &MultiplyInt8<MaddubsDot, true>;
  static constexpr MultiplyFunction kInt8 =
      &MultiplyInt8<SignedMaddubsDot, false>;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_MULTIPLY_INL_H_
