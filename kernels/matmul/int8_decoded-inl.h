// The inner loop of products of many rows with int8 activations, once per
// Highway target: MultiplyDecoded<> takes `kRows` rows times the decoded codes
// of one record, [K / 4][2 tiles][64 bytes], a block of K at a time. The same
// sums in the same order as MultiplyGroups<>, and nothing in it that has to be
// done only once for all rows: that costs 8 points of the multiply peak.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_DECODED_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_DECODED_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_DECODED_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_DECODED_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/int8_dots-inl.h"
#include "kernels/matmul/int8_groups-inl.h"
#include "kernels/matmul/panel_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The smallest group of rows where there are more than kFewRows: 13 rows in
// groups of 6 are 5, 4, 4.
template <class Dot>
inline constexpr int kMinDecodedRows = Dot::kMaxRows - Dot::kMaxRows / 3;

// Quads that are unrolled: the 32 inputs of the shortest group.
inline constexpr int64_t kStepQuads = kGroupSizeUnit / 4;

// A block of K of one record, for one group of rows.
struct DecodedArgs {
  const uint8_t* codes;            // [quads of the block][2 tiles][64 bytes]
  const std::byte* weight_scales;  // [groups of the block][32], f16 or f32
  const int32_t* zeros;  // [groups of the block][32]; null if in `starts`
  int64_t first_quad, end_quad;
  int64_t group_quads;
  const int8_t* panel;  // of the group of rows, from k = 0
  // [groups of the block][rows]: scales of the values, and where sums start:
  // -zero * the sum of the row's values; or with `zeros` minus the sum.
  const float* scales;
  const int32_t* starts;
  float* totals;  // row r, output i at r * total_stride + i
  int64_t total_stride;
  bool first_block;  // totals start at 0
  // So many lines are brought in with every group, up to an end.
  const uint8_t* prefetch;
  const uint8_t* prefetch_end;
  int64_t prefetch_lines;
};

// Walks through a block group by group.
struct DecodedCursor {
  const uint8_t* codes;
  const std::byte* weight_scales;
  const int32_t* zeros;
  const float* scales;
  const int32_t* starts;
  const uint8_t* prefetch;
  int64_t step;  // of kStepQuads from k = 0
};

HWY_INLINE VF LoadAsF32(const float* from) { return hn::Load(TileF32(), from); }
HWY_INLINE VF LoadAsF32(const hwy::float16_t* from) {
  const hn::Rebind<hwy::float16_t, TileF32> d16;
  return hn::PromoteTo(TileF32(), hn::Load(d16, from));
}

// One group: `steps` times kStepQuads and `rest` more.
template <class Dot, int kRows, bool kZeros, class Scale>
HWY_INLINE void MultiplyGroup(const DecodedArgs& args, int64_t steps,
                              int64_t rest, DecodedCursor& at,
                              RecordTotals<kRows>& totals) {
  using Sums = GroupSums<Dot, kRows>;
  constexpr int64_t kLine = 2 * kStepBytes;
  constexpr int64_t kStepLines = kStepQuads * kLine;
  constexpr int64_t kBlockSteps = kInt8BlockInputs / kGroupSizeUnit;
  for (int64_t i = 0; i < args.prefetch_lines; ++i) {
    __builtin_prefetch(std::min(at.prefetch, args.prefetch_end));
    at.prefetch += kStepBytes;
  }
  const Scale* scales = reinterpret_cast<const Scale*>(at.weight_scales);
  NIBBLE_UNROLL
  for (int vector = 0; vector < kRecordVectors; vector += Sums::kVectors) {
    Sums sums;
    if constexpr (kZeros) {
      NIBBLE_UNROLL
      for (int v = 0; v < Sums::kVectors; ++v) {
        sums.Start(at.starts,
                   hn::Load(TileI32(), at.zeros + (vector + v) * kLanes), v);
      }
    } else {
      sums.Start(at.starts);
    }
    const uint8_t* codes = at.codes + vector * kLanes * 4;
    const auto values_at = [&](int64_t step) HWY_ATTR {
      return reinterpret_cast<const int32_t*>(
          args.panel + step / kBlockSteps * (kRows * kInt8BlockInputs) +
          step % kBlockSteps * kGroupSizeUnit);
    };
    const int64_t end = at.step + steps;
    int64_t step = at.step;
    for (; step < end; ++step, codes += kStepLines) {
      const int32_t* values = values_at(step);
      NIBBLE_UNROLL
      for (int i = 0; i < kStepQuads; ++i) {
        sums.template AddLine<false>(codes + i * kLine, values + i, 0);
      }
      sums.Fold();
    }
    if (rest > 0) {
      const int32_t* values = values_at(step);
      for (int64_t i = 0; i < rest; ++i) {
        sums.template AddLine<false>(codes + i * kLine, values + i, 0);
      }
      sums.Fold();
    }
    NIBBLE_UNROLL
    for (int v = 0; v < Sums::kVectors; ++v) {
      totals.Add(vector + v, LoadAsF32(scales + (vector + v) * kLanes),
                 at.scales, sums, v);
    }
  }
  at.codes += steps * kStepLines;
  at.step += steps;
  at.weight_scales += kRecordOutputs * sizeof(Scale);
  if constexpr (kZeros) at.zeros += kRecordOutputs;
  at.scales += kRows;
  at.starts += kRows;
}

template <class Dot, int kRows, bool kZeros, class Scale>
void MultiplyDecoded(const DecodedArgs& call) {
  const DecodedArgs args = call;  // stores to the totals cannot change it
  DecodedCursor at = {args.codes,
                      args.weight_scales,
                      args.zeros,
                      args.scales,
                      args.starts,
                      args.prefetch,
                      args.first_quad / kStepQuads};
  RecordTotals<kRows> totals;
  totals.Load(args.totals, args.total_stride, args.first_block);
  for (int64_t left = args.end_quad - args.first_quad; left > 0;) {
    const int64_t quads = std::min(left, args.group_quads);
    MultiplyGroup<Dot, kRows, kZeros, Scale>(args, quads / kStepQuads,
                                             quads % kStepQuads, at, totals);
    left -= quads;
  }
  totals.Store(args.totals, args.total_stride);
}

using DecodedFunction = void (*)(const DecodedArgs&);

// MultiplyDecoded of kMinDecodedRows, one more, ... rows.
template <class Dot, bool kZeros, class Scale, int... kOffsets>
constexpr std::array<DecodedFunction, sizeof...(kOffsets)> DecodedFunctions(
    std::integer_sequence<int, kOffsets...>) {
  return {
      &MultiplyDecoded<Dot, kMinDecodedRows<Dot> + kOffsets, kZeros, Scale>...};
}

template <class Dot, bool kZeros, class Scale>
HWY_INLINE DecodedFunction FindDecodedFunction(int64_t rows) {
  constexpr int kFirst = kMinDecodedRows<Dot>;
  static constexpr auto kFunctions = DecodedFunctions<Dot, kZeros, Scale>(
      std::make_integer_sequence<int, Dot::kMaxRows - kFirst + 1>());
  return kFunctions[static_cast<size_t>(rows - kFirst)];
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_DECODED_INL_H_
