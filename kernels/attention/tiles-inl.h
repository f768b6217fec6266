// The two matrix products of attention, as register tiles. Included once per
// Highway target.
//
//   scores[r, k] = sum_d q[r, d] keys[d, k]
//   mix[r, d]   += sum_k weights[r, k] values[k, d]
//
// Each result is one chain of fused multiply-adds in ascending d, or k: the
// same bits for every tile shape, row and vector width.

#if defined(NIBBLE_KERNELS_ATTENTION_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_TILES_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_TILES_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_TILES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/unpack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A tile is kTileRows rows by kTileVectors vectors: 24 accumulators, 4 loaded
// vectors and a broadcast fit the 32 registers of AVX-512; 12, 2 and 1 the 16
// of AVX2. Both load 10 (AVX2: 8) vectors per 24 (12) multiply-adds.
inline constexpr int kTileRows = 6;
#if HWY_MAX_BYTES >= 64
inline constexpr int kTileVectors = 4;
#else
inline constexpr int kTileVectors = 2;
#endif

// scores [kRows, kVectors vectors]; q: [kRows, q_stride]; keys: [head_dim,
// kSubBlock].
template <int kRows, int kVectors>
HWY_INLINE void ScoreTile(const float* HWY_RESTRICT q, int64_t q_stride,
                          int64_t head_dim, const float* HWY_RESTRICT keys,
                          float* HWY_RESTRICT scores) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t N = hn::Lanes(d);
  V sums[kRows][kVectors];
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) sums[r][c] = hn::Zero(d);
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    V k[kVectors];
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      k[c] = hn::Load(d, keys + i * kSubBlock + c * N);
    }
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(d, q[r * q_stride + i]);
      HWY_UNROLL(4)
      for (int c = 0; c < kVectors; ++c) {
        sums[r][c] = hn::MulAdd(x, k[c], sums[r][c]);
      }
    }
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      hn::Store(sums[r][c], d, scores + r * kKeyBlock + c * N);
    }
  }
}

// mix [kRows, kVectors vectors] += weights [kRows, count] values [count, ...].
// The rows of mix and values are `stride` apart, those of weights kKeyBlock.
template <int kRows, int kVectors>
HWY_INLINE void ValueTile(const float* HWY_RESTRICT weights,
                          const float* HWY_RESTRICT values, int64_t count,
                          int64_t stride, float* HWY_RESTRICT mix) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t N = hn::Lanes(d);
  V sums[kRows][kVectors];
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      sums[r][c] = hn::Load(d, mix + r * stride + c * N);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    V v[kVectors];
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      v[c] = hn::Load(d, values + k * stride + c * N);
    }
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      const V w = hn::Set(d, weights[r * kKeyBlock + k]);
      HWY_UNROLL(4)
      for (int c = 0; c < kVectors; ++c) {
        sums[r][c] = hn::MulAdd(w, v[c], sums[r][c]);
      }
    }
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      hn::Store(sums[r][c], d, mix + r * stride + c * N);
    }
  }
}

// All kSubBlock scores of kRows rows.
template <int kRows>
HWY_NOINLINE void ScoreRows(const float* q, int64_t q_stride, int64_t head_dim,
                            const float* keys, float* scores) {
  const hn::ScalableTag<float> d;
  const int64_t step = kTileVectors * static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < kSubBlock; k += step) {
    ScoreTile<kRows, kTileVectors>(q, q_stride, head_dim, keys + k, scores + k);
  }
}

// All `stride` dimensions of kRows rows.
template <int kRows>
HWY_NOINLINE void ValueRows(const float* weights, const float* values,
                            int64_t count, int64_t stride, float* mix) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  int64_t dim = 0;
  for (; dim + kTileVectors * N <= stride; dim += kTileVectors * N) {
    ValueTile<kRows, kTileVectors>(weights, values + dim, count, stride,
                                   mix + dim);
  }
  if constexpr (kTileVectors > 2) {
    for (; dim + 2 * N <= stride; dim += 2 * N) {
      ValueTile<kRows, 2>(weights, values + dim, count, stride, mix + dim);
    }
  }
  for (; dim < stride; dim += N) {
    ValueTile<kRows, 1>(weights, values + dim, count, stride, mix + dim);
  }
}

// Calls f with std::integral_constant-like row counts: rows in [1, kTileRows].
#define NIBBLE_DISPATCH_ROWS(rows, Function, ...) \
  switch (rows) {                                 \
    case 1:                                       \
      return Function<1>(__VA_ARGS__);            \
    case 2:                                       \
      return Function<2>(__VA_ARGS__);            \
    case 3:                                       \
      return Function<3>(__VA_ARGS__);            \
    case 4:                                       \
      return Function<4>(__VA_ARGS__);            \
    case 5:                                       \
      return Function<5>(__VA_ARGS__);            \
    default:                                      \
      return Function<6>(__VA_ARGS__);            \
  }

HWY_INLINE void Scores(int64_t rows, const float* q, int64_t q_stride,
                       int64_t head_dim, const float* keys, float* scores) {
  NIBBLE_DISPATCH_ROWS(rows, ScoreRows, q, q_stride, head_dim, keys, scores);
}

HWY_INLINE void MixValues(int64_t rows, const float* weights,
                          const float* values, int64_t count, int64_t stride,
                          float* mix) {
  NIBBLE_DISPATCH_ROWS(rows, ValueRows, weights, values, count, stride, mix);
}

#undef NIBBLE_DISPATCH_ROWS

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_TILES_INL_H_
