// The inner loop of products of integer weights with int8 activations, once per
// Highway target: MultiplyGroups<> takes `kRows` rows times one record of 32
// outputs. In each group of K it sums in int32, then adds to the totals:
//
//   total = fma(float(sum), weight_scale * activation_scale, total)
//
// sum = sum_k (code - zero) * value starts at -zero * sum_k value, and then
// takes the codes as they are, unsigned.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_GROUPS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_GROUPS_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_GROUPS_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_GROUPS_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/int8_dots-inl.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Up to so many rows, nibbles are decoded in the inner loop.
template <class Dot>
inline constexpr int kFewRows = 4 * Dot::kMaxRows;
// The smallest group where there are more: 13 rows in groups of 6 are 5, 4, 4.
template <class Dot>
inline constexpr int kMinDecodedRows = Dot::kMaxRows - Dot::kMaxRows / 3;

// Vectors of a record that are summed together: all, unless the registers are
// few.
constexpr int VectorsTogether(int rows) {
  return HWY_CAP_GE512 || rows > 2 ? 2 : 4;
}

// One call of the inner loop: some groups of K of one record, for one group of
// rows.
struct GroupArgs {
  const PackedLayout* layout;
  const std::byte* record;  // its scales and zero points
  const uint8_t* codes;     // of the first group
  int64_t first_group;
  int64_t end_group;
  const int8_t* panel;  // of the group of rows, from k = 0
  const float* scales;  // [groups][rows]
  // [groups][rows]: where sums start, -zero * the sum of the row's values; or
  // if zero points differ, minus the sum.
  const int32_t* starts;
  bool zeros_differ;
  float* totals;  // row r, output i at r * total_stride + i
  int64_t total_stride;
  // Brings in what comes next: so many lines with every 32 inputs, and so many
  // bytes with every group, up to an end.
  const uint8_t* prefetch;
  const uint8_t* prefetch_end;
  int64_t prefetch_lines;
  int64_t prefetch_group_bytes;
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

// The sums of one group: several rows times some vectors of a record. Two
// chains of additions where rows are few, because each takes 4 to 5 cycles.
template <class Dot, int kRows>
struct GroupSums {
  static constexpr int kVectors = VectorsTogether(kRows);
  static constexpr int kChains = kRows <= 2 ? 2 : 1;

  // -zero * sum of the row's values.
  HWY_INLINE void Start(const GroupArgs& args, int64_t group, int vector) {
    const TileI32 d;
    const int32_t* starts = args.starts + group * kRows;
    if (args.zeros_differ) {
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const VI32 zeros =
            LoadZeros(*args.layout, args.record, group, vector + v);
        NIBBLE_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sums[0][r][v] = Dot::Start(hn::Mul(hn::Set(d, starts[r]), zeros));
        }
      }
    } else {
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const VI32 start = hn::Set(d, starts[r]);
        NIBBLE_UNROLL
        for (int v = 0; v < kVectors; ++v) sums[0][r][v] = Dot::Start(start);
      }
    }
    if constexpr (kChains > 1) {
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        NIBBLE_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          sums[1][r][v] = Dot::Start(hn::Zero(d));
        }
      }
    }
  }

  // One line of each vector, with the rows' values.
  template <bool kNibbles>
  HWY_INLINE void AddLine(const uint8_t* line, const int32_t* values,
                          int line_in_turn) {
    constexpr int kQuads = Weights<Dot, kNibbles>::kQuads;
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
            hn::Set(TileI32(), values[r * (kInt8BlockInputs / 4) + q]));
        NIBBLE_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          Dot::Add(weights[v][q], a,
                   sums[(line_in_turn * kQuads + q) % kChains][r][v]);
        }
      }
    }
  }

  HWY_INLINE void Fold() {
    NIBBLE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        NIBBLE_UNROLL
        for (int v = 0; v < kVectors; ++v) Dot::Fold(sums[c][r][v]);
      }
    }
  }

  HWY_INLINE VI32 Value(int r, int v) const {
    if constexpr (kChains == 1) return Dot::Value(sums[0][r][v]);
    return hn::Add(Dot::Value(sums[0][r][v]),
                   Dot::Value(sums[kChains - 1][r][v]));
  }

  typename Dot::Sum sums[kChains][kRows][kVectors];
};

// The totals of a record: in registers, beside as many sums, or in L1 where
// there are too few. (Loading and storing them costs 16 cycles a group of 12
// rows on Zen 5, a tenth of all at g32.)
template <int kRows>
struct RecordTotals {
  HWY_INLINE void Load(const GroupArgs& args) {
    const TileF32 d;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int v = 0; v < kRecordVectors; ++v) {
        const float* from = args.totals + r * args.total_stride + v * kLanes;
        Set(r, v, args.first_group == 0 ? hn::Zero(d) : hn::Load(d, from));
      }
    }
  }

  HWY_INLINE void Store(const GroupArgs& args) const {
    const TileF32 d;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int v = 0; v < kRecordVectors; ++v) {
        hn::Store(Get(r, v), d,
                  args.totals + r * args.total_stride + v * kLanes);
      }
    }
  }

  // total = fma(float(sum), weight_scale * activation_scale, total).
  template <class Sums>
  HWY_INLINE void Add(const GroupArgs& args, int64_t group, int vector,
                      const Sums& sums) {
    const TileF32 d;
    const float* scales = args.scales + group * kRows;
    NIBBLE_UNROLL
    for (int v = 0; v < Sums::kVectors; ++v) {
      const VF weight_scales =
          LoadScales(*args.layout, args.record, group, vector + v);
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const VF scale = hn::Mul(weight_scales, hn::Set(d, scales[r]));
        Set(r, vector + v,
            hn::MulAdd(hn::ConvertTo(d, sums.Value(r, v)), scale,
                       Get(r, vector + v)));
      }
    }
  }

#if HWY_CAP_GE512
  HWY_INLINE VF Get(int r, int v) const { return totals[r][v]; }
  HWY_INLINE void Set(int r, int v, VF total) { totals[r][v] = total; }

  VF totals[kRows][kRecordVectors];
#else
  HWY_INLINE VF Get(int r, int v) const {
    return hn::Load(TileF32(), totals + r * kRecordOutputs + v * kLanes);
  }
  HWY_INLINE void Set(int r, int v, VF total) {
    hn::Store(total, TileF32(), totals + r * kRecordOutputs + v * kLanes);
  }

  HWY_ALIGN float totals[kRows * kRecordOutputs];
#endif
};

// Prefetches `lines` lines; returns where to go on.
HWY_INLINE const uint8_t* Prefetch(const uint8_t* at, int64_t lines,
                                   const uint8_t* end) {
  for (int64_t i = 0; i < lines && at < end; ++i) {
    __builtin_prefetch(at);
    at += kStepBytes;
  }
  return at;
}

template <class Dot, bool kNibbles, int kRows>
void MultiplyGroups(const GroupArgs& call) {
  using Sums = GroupSums<Dot, kRows>;
  constexpr int kQuads = Weights<Dot, kNibbles>::kQuads;
  constexpr int64_t kLine = 2 * kStepBytes;  // of both tiles
  constexpr uint64_t kBlockQuads = kInt8BlockInputs / 4;
  constexpr uint64_t kSegment = Dot::kSegmentQuads;
  constexpr int kUnroll = Dot::kUnrolledQuads / kQuads;
  // Copied, because stores to the totals could change the call for all the
  // compiler knows.
  const GroupArgs args = call;
  const uint64_t group_quads =
      CeilDiv(args.layout->group_size, 4 * kQuads) * kQuads;
  const uint64_t all_quads = CeilDiv(args.layout->inputs, 4 * kQuads) * kQuads;
  const uint8_t* codes = args.codes;  // of the group
  const uint8_t* prefetch = args.prefetch;
  RecordTotals<kRows> totals;
  totals.Load(args);
  for (int64_t group = args.first_group; group < args.end_group; ++group) {
    const uint64_t begin = group * group_quads;
    const uint64_t end = std::min(all_quads, begin + group_quads);
    NIBBLE_UNROLL
    for (int vector = 0; vector < kRecordVectors; vector += Sums::kVectors) {
      if (vector == 0) {
        const int64_t bytes = args.prefetch_group_bytes;
        const int64_t lines =
            (group + 1) * bytes / kStepBytes - group * bytes / kStepBytes;
        prefetch = Prefetch(prefetch, lines, args.prefetch_end);
      }
      Sums sums;
      sums.Start(args, group, vector);
      const uint8_t* line = codes + vector * kLanes * 4;
      for (uint64_t quad = begin; quad < end;) {
        const int32_t* values = reinterpret_cast<const int32_t*>(args.panel) +
                                quad / kBlockQuads * (kRows * kBlockQuads) +
                                quad % kBlockQuads;
        const uint64_t count = std::min(kSegment - quad % kSegment, end - quad);
        quad += count;
        if (vector == 0) {
          const int64_t lines = args.prefetch_lines * ((count + 7) / 8);
          prefetch = Prefetch(prefetch, lines, args.prefetch_end);
        }
        uint64_t left = count / kQuads;
        for (; left >= kUnroll; left -= kUnroll) {
          NIBBLE_UNROLL
          for (int i = 0; i < kUnroll; ++i) {
            sums.template AddLine<kNibbles>(line + i * kLine,
                                            values + i * kQuads, i);
          }
          line += kUnroll * kLine;
          values += kUnroll * kQuads;
        }
        for (; left > 0; --left) {
          sums.template AddLine<kNibbles>(line, values, 0);
          line += kLine;
          values += kQuads;
        }
        sums.Fold();
      }
      totals.Add(args, group, vector, sums);
    }
    codes += (end - begin) / kQuads * kLine;
  }
  totals.Store(args);
}

using GroupFunction = void (*)(const GroupArgs&);

// MultiplyGroups of kFirst, kFirst + 1, ... rows.
template <class Dot, bool kNibbles, int kFirst, int... kOffsets>
constexpr std::array<GroupFunction, sizeof...(kOffsets)> GroupFunctions(
    std::integer_sequence<int, kOffsets...>) {
  return {&MultiplyGroups<Dot, kNibbles, kFirst + kOffsets>...};
}

template <class Dot, bool kNibbles, int kFirst>
HWY_INLINE GroupFunction FindGroupFunction(int64_t rows) {
  static constexpr auto kFunctions = GroupFunctions<Dot, kNibbles, kFirst>(
      std::make_integer_sequence<int, Dot::kMaxRows - kFirst + 1>());
  return kFunctions[static_cast<size_t>(rows - kFirst)];
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_GROUPS_INL_H_
