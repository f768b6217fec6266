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

  HWY_INLINE void Start(const int32_t* starts) {
    const TileI32 d;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VI32 start = hn::Set(d, starts[r]);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) StartAt(r, v, start);
    }
  }

  // Vector v, where `starts` are yet to be multiplied by zero points.
  HWY_INLINE void Start(const int32_t* starts, VI32 zeros, int v) {
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      StartAt(r, v, hn::Mul(hn::Set(TileI32(), starts[r]), zeros));
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

 private:
  HWY_INLINE void StartAt(int r, int v, VI32 start) {
    sums[0][r][v] = Dot::Start(start);
    if constexpr (kChains > 1) {
      sums[1][r][v] = Dot::Start(hn::Zero(TileI32()));
    }
  }
};

// The totals of a record: in registers, beside as many sums, or in L1 where
// there are too few. (Loading and storing them costs 16 cycles a group of 12
// rows on Zen 5, a tenth of all at g32.)
template <int kRows>
struct RecordTotals {
  // Row r, output i at from[r * stride + i]; or zeros.
  HWY_INLINE void Load(const float* from, int64_t stride, bool zeros) {
    const TileF32 d;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int v = 0; v < kRecordVectors; ++v) {
        Set(r, v,
            zeros ? hn::Zero(d) : hn::Load(d, from + r * stride + v * kLanes));
      }
    }
  }

  HWY_INLINE void Store(float* to, int64_t stride) const {
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      NIBBLE_UNROLL
      for (int v = 0; v < kRecordVectors; ++v) {
        hn::Store(Get(r, v), TileF32(), to + r * stride + v * kLanes);
      }
    }
  }

  // total = fma(float(sum), weight_scale * activation_scale, total) of vector
  // `vector`, whose sums are the v-th.
  template <class Sums>
  HWY_INLINE void Add(int vector, VF weight_scales, const float* scales,
                      const Sums& sums, int v) {
    const TileF32 d;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF scale = hn::Mul(weight_scales, hn::Set(d, scales[r]));
      Set(r, vector,
          hn::MulAdd(hn::ConvertTo(d, sums.Value(r, v)), scale,
                     Get(r, vector)));
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
  totals.Load(args.totals, args.total_stride, args.first_group == 0);
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
      const int32_t* starts = args.starts + group * kRows;
      if (args.zeros_differ) {
        NIBBLE_UNROLL
        for (int v = 0; v < Sums::kVectors; ++v) {
          sums.Start(starts,
                     LoadZeros(*args.layout, args.record, group, vector + v),
                     v);
        }
      } else {
        sums.Start(starts);
      }
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
      NIBBLE_UNROLL
      for (int v = 0; v < Sums::kVectors; ++v) {
        totals.Add(vector + v,
                   LoadScales(*args.layout, args.record, group, vector + v),
                   args.scales + group * kRows, sums, v);
      }
    }
    codes += (end - begin) / kQuads * kLine;
  }
  totals.Store(args.totals, args.total_stride);
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
