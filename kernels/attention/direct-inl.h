// The two matrix products of attention for few rows, straight from the cache:
// what tiles-inl.h computes, bit for bit, without unpacking into buffers. In
// decode every key and value serves only the rows of one group, and writing it
// to a buffer and reading it back would cost more than the arithmetic.
// Included once per Highway target.

#if defined(NIBBLE_KERNELS_ATTENTION_DIRECT_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_DIRECT_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_DIRECT_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_DIRECT_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/unpack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows up to which the products are direct: all accumulators of a tile of keys
// fit the registers beside the 8 vectors that a transpose occupies.
#if HWY_MAX_BYTES >= 64
inline constexpr int kDirectRows = 8;
#else
inline constexpr int kDirectRows = 4;
#endif

// Vectors of keys that a tile takes at once, and that share a broadcast. Few
// rows need several, as chains of dependent multiply-adds of their own: 4
// cycles of latency at 2 a cycle want 8.
template <int kRows>
inline constexpr int kDirectVectors = HWY_MAX_BYTES >= 64
                                          ? (kRows <= 2 ? 4 : 2)
                                          : (kRows <= 2 ? 2 : 1);

// sums[r][c] += q[r] * key[c] for one dimension.
template <int kRows, int kVectors, class V>
HWY_INLINE void AddProducts(const float* HWY_RESTRICT q, int64_t q_stride,
                            const V (&key)[kVectors],
                            V (&sums)[kRows][kVectors]) {
  const hn::ScalableTag<float> d;
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const V x = hn::Set(d, q[r * q_stride]);
    HWY_UNROLL(4)
    for (int c = 0; c < kVectors; ++c) {
      sums[r][c] = hn::MulAdd(x, key[c], sums[r][c]);
    }
  }
}

// As ScoreRows. copy: [kSubBlock, head_dim].
template <int kRows, class T>
HWY_NOINLINE void DirectScores(const TokenRange<T>& tokens, int64_t start,
                               const TokenRange<T>& next, T* copy,
                               const float* HWY_RESTRICT q, int64_t q_stride,
                               float* HWY_RESTRICT scores) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kVectors = kDirectVectors<kRows>;
  constexpr int64_t kStep = kDimsPerStep<T>;
  const int64_t head_dim = tokens.kv.head_dim;
  for (int64_t k = 0; k < kSubBlock; k += kVectors * N) {
    if (start + k >= tokens.end) break;
    const T* const rows = tokens.Contiguous(start + k, kVectors * N, copy);
    const std::byte* const ahead = next.Ahead(k);
    V sums[kRows][kVectors];
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(4)
      for (int c = 0; c < kVectors; ++c) sums[r][c] = hn::Zero(d);
    }
    int64_t dim = 0;
    for (; dim + kStep <= head_dim; dim += kStep) {
      PrefetchBytes<true>(ahead,
                          dim * kVectors * N * static_cast<int64_t>(sizeof(T)),
                          16 * kVectors * N);
      hn::Vec<decltype(WordTag(d, rows))> words[kVectors][4];
      HWY_UNROLL(4)
      for (int c = 0; c < kVectors; ++c) {
        TransposeWords(WordTag(d, rows), rows + c * N * head_dim + dim,
                       head_dim, words[c]);
      }
      const float* x = q + dim;
      HWY_UNROLL(4)
      for (int w = 0; w < 4; ++w) {
        V key[kVectors];
        HWY_UNROLL(4)
        for (int c = 0; c < kVectors; ++c) key[c] = DimOf<0>(d, words[c][w]);
        AddProducts<kRows, kVectors>(x++, q_stride, key, sums);
        if constexpr (kStep == 8) {
          HWY_UNROLL(4)
          for (int c = 0; c < kVectors; ++c) key[c] = DimOf<1>(d, words[c][w]);
          AddProducts<kRows, kVectors>(x++, q_stride, key, sums);
        }
      }
    }
    for (; dim < head_dim; ++dim) {
      V key[kVectors];
      for (int c = 0; c < kVectors; ++c) {
        key[c] = GatherDim(d, rows + c * N * head_dim + dim, head_dim);
      }
      AddProducts<kRows, kVectors>(q + dim, q_stride, key, sums);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(4)
      for (int c = 0; c < kVectors; ++c) {
        hn::Store(sums[r][c], d, scores + r * kKeyBlock + k + c * N);
      }
    }
  }
}

// As ValueTile, with rows of values at values[k] + dim.
template <int kRows, int kVectors, class T>
HWY_INLINE void DirectValueTile(const float* HWY_RESTRICT weights,
                                const T* const* values, int64_t dim,
                                int64_t count, const TokenRange<T>& next,
                                int64_t stride, float* HWY_RESTRICT mix) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kRun = 16;  // tokens prefetched from one address
  const int64_t row_bytes = next.kv.head_dim * static_cast<int64_t>(sizeof(T));
  V sums[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      sums[r][c] = hn::Load(d, mix + r * stride + dim + c * N);
    }
  }
  for (int64_t k = 0; k < count;) {
    const std::byte* ahead = dim == 0 ? next.Ahead(k) : nullptr;
    for (const int64_t end = std::min(count, k + kRun); k < end; ++k) {
      PrefetchBytes<true>(ahead, k % kRun * row_bytes, row_bytes);
      V v[kVectors];
      HWY_UNROLL(8)
      for (int c = 0; c < kVectors; ++c) {
        v[c] = LoadWide(d, values[k] + dim + c * N);
      }
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        const V w = hn::Set(d, weights[r * kKeyBlock + k]);
        HWY_UNROLL(8)
        for (int c = 0; c < kVectors; ++c) {
          sums[r][c] = hn::MulAdd(w, v[c], sums[r][c]);
        }
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      hn::Store(sums[r][c], d, mix + r * stride + dim + c * N);
    }
  }
}

// As ValueRows. REQUIRES: head_dim is a multiple of the vector.
template <int kRows, class T>
HWY_NOINLINE void DirectValues(const float* weights, const T* const* values,
                               int64_t count, const TokenRange<T>& next,
                               int64_t stride, float* mix) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t head_dim = next.kv.head_dim;
  int64_t dim = 0;
#if HWY_MAX_BYTES >= 64
  if constexpr (kRows <= 2) {
    for (; dim + 8 * N <= head_dim; dim += 8 * N) {
      DirectValueTile<kRows, 8>(weights, values, dim, count, next, stride, mix);
    }
  }
  if constexpr (kRows <= 6) {
    for (; dim + 4 * N <= head_dim; dim += 4 * N) {
      DirectValueTile<kRows, 4>(weights, values, dim, count, next, stride, mix);
    }
  }
#else
  if constexpr (kRows <= 2) {
    for (; dim + 4 * N <= head_dim; dim += 4 * N) {
      DirectValueTile<kRows, 4>(weights, values, dim, count, next, stride, mix);
    }
  }
#endif
  for (; dim + 2 * N <= head_dim; dim += 2 * N) {
    DirectValueTile<kRows, 2>(weights, values, dim, count, next, stride, mix);
  }
  for (; dim < head_dim; dim += N) {
    DirectValueTile<kRows, 1>(weights, values, dim, count, next, stride, mix);
  }
}

// Calls Function<rows>(...) for rows in [1, kDirectRows].
#if HWY_MAX_BYTES >= 64
#define NIBBLE_DIRECT_CASES_ABOVE_4(Function, ...) \
  case 5:                                          \
    return Function<5>(__VA_ARGS__);               \
  case 6:                                          \
    return Function<6>(__VA_ARGS__);               \
  case 7:                                          \
    return Function<7>(__VA_ARGS__);               \
  case 8:                                          \
    return Function<8>(__VA_ARGS__);
#else
#define NIBBLE_DIRECT_CASES_ABOVE_4(Function, ...)
#endif
#define NIBBLE_DISPATCH_DIRECT(rows, Function, ...)      \
  switch (rows) {                                        \
    case 1:                                              \
      return Function<1>(__VA_ARGS__);                   \
    case 2:                                              \
      return Function<2>(__VA_ARGS__);                   \
    case 3:                                              \
      return Function<3>(__VA_ARGS__);                   \
    case 4:                                              \
      return Function<4>(__VA_ARGS__);                   \
      NIBBLE_DIRECT_CASES_ABOVE_4(Function, __VA_ARGS__) \
  }

template <class T>
HWY_INLINE void ScoresFromCache(int64_t rows, const TokenRange<T>& tokens,
                                int64_t start, const TokenRange<T>& next,
                                T* copy, const float* q, int64_t q_stride,
                                float* scores) {
  NIBBLE_DISPATCH_DIRECT(rows, DirectScores, tokens, start, next, copy, q,
                         q_stride, scores);
}

template <class T>
HWY_INLINE void MixFromCache(int64_t rows, const float* weights,
                             const T* const* values, int64_t count,
                             const TokenRange<T>& next, int64_t stride,
                             float* mix) {
  NIBBLE_DISPATCH_DIRECT(rows, DirectValues, weights, values, count, next,
                         stride, mix);
}

#undef NIBBLE_DISPATCH_DIRECT
#undef NIBBLE_DIRECT_CASES_ABOVE_4

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_DIRECT_INL_H_
