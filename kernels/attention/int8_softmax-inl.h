// From scores to integer weights: the softmax of attention over an int8 cache
// within one key block. Included once per Highway target; int8_arithmetic.h has
// the formulas.

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_SOFTMAX_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_SOFTMAX_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_SOFTMAX_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_arithmetic.h"
#include "kernels/attention/int8_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Keys whose weights are packed at a time: four AVX-512 vectors.
inline constexpr int64_t kWeightUnit = 64;

// The sum of 16 lanes, folded in halves.
HWY_INLINE float FoldedSum(const float* lanes) {
  const hn::FixedTag<float, 4> d;
  const auto sum8 = [&](int64_t i) HWY_ATTR {
    return hn::Add(hn::LoadU(d, lanes + i), hn::LoadU(d, lanes + i + 8));
  };
  const auto four = hn::Add(sum8(0), sum8(4));
  const auto two = hn::Add(four, hn::Reverse2(d, hn::Reverse4(d, four)));
  return hn::GetLane(hn::Add(two, hn::Reverse2(d, two)));
}

// The visible columns of one row's scores [kKeyBlock], and its bias: slope *
// (column + shift) in units of log 2.
struct Int8Row {
  int64_t begin;
  int64_t end;  // > begin
  float slope;
  int64_t shift;
};

// Columns of the whole units that hold visible ones.
HWY_INLINE int64_t UnitBegin(int64_t column) {
  return column / kWeightUnit * kWeightUnit;
}
HWY_INLINE int64_t UnitEnd(int64_t column) {
  return (column + kWeightUnit - 1) / kWeightUnit * kWeightUnit;
}

// Sets columns [begin, end) of a row, less than a unit.
HWY_INLINE void FillColumns(int64_t begin, int64_t end, float value,
                            float* row) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const auto values = hn::Set(d, value);
  for (; begin < end; begin += N) {
    hn::StoreN(values, d, row + begin, static_cast<size_t>(end - begin));
  }
}

// Hides the other columns of the units that hold visible ones, and adds the
// bias. Returns the largest score.
HWY_INLINE float FinishScores(const Int8Row& row, float* scores) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first = UnitBegin(row.begin);
  const int64_t last = UnitEnd(row.end);
  if (row.slope != 0.0f) {
    const auto slope = hn::Set(d, row.slope);
    for (int64_t at = first; at < last; at += N) {
      const auto distance = hn::Iota(d, static_cast<float>(at + row.shift));
      hn::Store(hn::MulAdd(slope, distance, hn::Load(d, scores + at)), d,
                scores + at);
    }
  }
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  FillColumns(first, row.begin, kHidden, scores);
  FillColumns(row.end, last, kHidden, scores);
  // Four chains: the order does not matter to a maximum.
  auto max0 = hn::Load(d, scores + first);
  auto max1 = hn::Load(d, scores + first + N);
  auto max2 = hn::Load(d, scores + first + 2 * N);
  auto max3 = hn::Load(d, scores + first + 3 * N);
  for (int64_t at = first + 4 * N; at < last; at += 4 * N) {
    max0 = hn::Max(max0, hn::Load(d, scores + at));
    max1 = hn::Max(max1, hn::Load(d, scores + at + N));
    max2 = hn::Max(max2, hn::Load(d, scores + at + 2 * N));
    max3 = hn::Max(max3, hn::Load(d, scores + at + 3 * N));
  }
  return hn::ReduceMax(d, hn::Max(hn::Max(max0, max1), hn::Max(max2, max3)));
}

// factors = scales * 32767 / S of the visible columns of one row, zero in the
// rest of their units; returns S, the largest of these scales.
HWY_INLINE float ScaleFactors(KeyRange columns, const float* scales,
                              float* factors) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first = UnitBegin(columns.begin);
  const int64_t last = UnitEnd(columns.end);
  for (int64_t i = first; i < last; i += N) {
    hn::Store(hn::Load(d, scales + i), d, factors + i);
  }
  FillColumns(first, columns.begin, 0.0f, factors);
  FillColumns(columns.end, last, 0.0f, factors);
  auto max = hn::Zero(d);
  for (int64_t i = first; i < last; i += N) {
    max = hn::Max(max, hn::Load(d, factors + i));
  }
  const float largest = hn::ReduceMax(d, max);
  const auto to_weight =
      hn::Set(d, largest == 0.0f ? 0.0f : kMaxWeight / largest);
  for (int64_t i = first; i < last; i += N) {
    hn::Store(hn::Mul(hn::Load(d, factors + i), to_weight), d, factors + i);
  }
  return largest;
}

// Zeroes the weights of the units from `begin` on that start before `end`.
template <bool kVnni>
HWY_INLINE void ClearWeights(int64_t begin, int64_t end, std::byte* weights) {
  const Int8Tag d;
  for (; begin < end; begin += kWeightUnit) {
    // Half of a unit's bytes, and the other half.
    std::byte* const low = weights + begin * (kVnni ? 1 : 2);
    std::byte* const high = low + (kVnni ? kKeyBlock : kWeightUnit);
    for (int64_t i = 0; i < kWeightUnit; i += HWY_MAX_BYTES) {
      hn::Store(hn::Zero(d), d, reinterpret_cast<int32_t*>(low + i));
      hn::Store(hn::Zero(d), d, reinterpret_cast<int32_t*>(high + i));
    }
  }
}

// p = 2^(score - max): zero 127 below the maximum, NaN for NaN.
HWY_INLINE hn::Vec<hn::ScalableTag<float>> Int8Probability(
    hn::Vec<hn::ScalableTag<float>> score,
    hn::Vec<hn::ScalableTag<float>> max) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  // In this order x86 returns the second operand if either is a NaN.
  const auto x = hn::Max(hn::Set(d, kInt8MinExponent), hn::Sub(score, max));
  const auto magic = hn::Set(d, kInt8RoundMagic);
  const auto t = hn::Add(x, magic);
#if HWY_TARGET <= HWY_AVX3
  // x less x rounded, in one instruction.
  hn::Vec<decltype(d)> f;
  f.raw = _mm512_reduce_ps(x.raw, _MM_FROUND_NO_EXC);
#else
  const auto f = hn::Sub(x, hn::Sub(t, magic));
#endif
  auto p = hn::Set(d, kInt8Exp2[3]);
  p = hn::MulAdd(p, f, hn::Set(d, kInt8Exp2[2]));
  p = hn::MulAdd(p, f, hn::Set(d, kInt8Exp2[1]));
  p = hn::MulAdd(p, f, hn::Set(d, kInt8Exp2[0]));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return hn::BitCast(
      d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, t))));
}

// Packs the low 16 bits of four vectors of keys, in order, for WeightOffset.
// `to` is where those of the first key's group and quad lie.
template <bool kVnni>
HWY_INLINE void PackWeights(const Int8Sums& v0, const Int8Sums& v1,
                            const Int8Sums& v2, const Int8Sums& v3,
                            std::byte* to) {
  const Int8Tag d;
  const hn::Repartition<uint8_t, Int8Tag> d8;
  const hn::Repartition<uint64_t, Int8Tag> d64;
  // The bytes that one block of 16 is left with in its lower half.
  const auto order = kVnni
                         ? hn::Dup128VecFromValues(d8, 0, 4, 8, 12, 1, 5, 9, 13,
                                                   0, 4, 8, 12, 1, 5, 9, 13)
                         : hn::Dup128VecFromValues(d8, 0, 1, 8, 9, 4, 5, 12, 13,
                                                   0, 1, 8, 9, 4, 5, 12, 13);
  const auto pick = [&](const Int8Sums& v) HWY_ATTR {
    return hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, v), order));
  };
  uint64_t* const out = reinterpret_cast<uint64_t*>(to);
  if constexpr (kVnni) {
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d, pick(v0), pick(v1)));
    const auto b = hn::BitCast(d64, hn::InterleaveLower(d, pick(v2), pick(v3)));
    hn::Store(hn::InterleaveUpper(d64, a, b), d64, out);
    hn::Store(hn::InterleaveLower(d64, a, b), d64, out + kKeyBlock / 8);
  } else {
    const auto join = [&](const Int8Sums& a, const Int8Sums& b) HWY_ATTR {
      return hn::InterleaveLower(d64, hn::BitCast(d64, pick(a)),
                                 hn::BitCast(d64, pick(b)));
    };
    hn::Store(join(v0, v1), d64, out);
    hn::Store(join(v2, v3), d64, out + hn::Lanes(d64));
  }
}

// The weights of one row's finished scores, for whole units around the visible
// columns. value_factors: [kKeyBlock], s_value * 32767 / S.
// Returns the sum of the probabilities.
template <bool kVnni>
HWY_INLINE float WeighInt8Row(const Int8Row& row, const float* scores,
                              float max, const float* value_factors,
                              std::byte* weights) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const auto top = hn::Set(d, max);
  const auto round = hn::Set(d, kInt8WeightMagic);
  // The 16 lanes of the sum: one vector, or two that take turns.
  auto even = hn::Zero(d);
  auto odd = even;
  const auto weigh = [&](int64_t column, auto& sum) HWY_ATTR {
    const auto p = Int8Probability(hn::Load(d, scores + column), top);
    sum = hn::Add(sum, p);
    const auto factor = hn::Load(d, value_factors + column);
    return hn::BitCast(Int8Tag(), hn::MulAdd(p, factor, round));
  };
  auto& other = HWY_MAX_BYTES >= 64 ? even : odd;
  const int64_t last = UnitEnd(row.end);
  for (int64_t at = UnitBegin(row.begin); at < last; at += 4 * N) {
    const auto v0 = weigh(at, even);
    const auto v1 = weigh(at + N, other);
    const auto v2 = weigh(at + 2 * N, even);
    const auto v3 = weigh(at + 3 * N, other);
    PackWeights<kVnni>(v0, v1, v2, v3, weights + at * (kVnni ? 1 : 2));
  }
  HWY_ALIGN float lanes[16];
  hn::Store(even, d, lanes);
  if (HWY_MAX_BYTES < 64) hn::Store(odd, d, lanes + N);
  return FoldedSum(lanes);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_SOFTMAX_INL_H_
