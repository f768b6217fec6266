// Unpacking a sub-block of the cache for the matrix tiles: keys transposed, so
// that a vector holds one dimension of neighbouring keys, and values widened.
// Included once per Highway target.
//
// The tokens of one head are contiguous within a page only, in streams too
// short for the hardware to run ahead of. So while a sub-block is unpacked, the
// bytes of the one to be unpacked next are prefetched, at the same pace.

#if defined(NIBBLE_KERNELS_ATTENTION_UNPACK_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_UNPACK_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_UNPACK_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_UNPACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/attention/kv_view.h"
#include "tensor/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Keys of a sub-block: what is unpacked at a time. The keys of 64 tokens take
// 16 KiB at head_dim 64 and 32 KiB at 128, so they stay in L1 while all rows of
// a task pass over them; 64 is also four AVX-512 vectors, the width of a tile.
inline constexpr int64_t kSubBlock = 64;

// Tokens [begin, end) of one KV head's keys or values.
template <class T>
struct TokenRange {
  absl::Span<std::byte* const> pages;
  const KvView& kv;
  int64_t kv_head;
  int64_t begin;
  int64_t end;

  // The head_dim values of token begin + t.
  const T* Row(int64_t t) const {
    const int64_t page = (begin + t) / kv.page_tokens;
    const int64_t slot = (begin + t) % kv.page_tokens;
    return reinterpret_cast<const T*>(pages[page]) +
           (kv_head * kv.page_tokens + slot) * kv.head_dim;
  }

  // rows[t] = Row(t) for all tokens.
  void Rows(const T** rows) const {
    int64_t page = begin / kv.page_tokens;
    int64_t slot = begin % kv.page_tokens;
    for (int64_t t = 0; t < end - begin;) {
      const T* row = reinterpret_cast<const T*>(pages[page]) +
                     (kv_head * kv.page_tokens + slot) * kv.head_dim;
      const int64_t run = std::min(end - begin - t, kv.page_tokens - slot);
      for (int64_t stop = t + run; t < stop; ++t, row += kv.head_dim) {
        rows[t] = row;
      }
      ++page;
      slot = 0;
    }
  }

  // Where the tokens from begin + t on are expected, for prefetching only:
  // right as far as the page goes. Null past the end.
  const std::byte* Ahead(int64_t t) const {
    if (begin + t >= end) return nullptr;
    return reinterpret_cast<const std::byte*>(Row(t));
  }
};

constexpr int64_t kLineBytes = 64;

// Starts to load bytes [from, from + bytes) of what lies at `base`, if known.
HWY_INLINE void PrefetchBytes(const std::byte* base, int64_t from,
                              int64_t bytes) {
  if (base == nullptr) return;
  for (int64_t at = 0; at < bytes; at += kLineBytes) {
    hwy::Prefetch(base + from + at);
  }
}

// Four 32-bit words at `p` of every fourth of the keys rows[0], rows[4]...: one
// 128-bit block each.
template <class DW, class T>
HWY_INLINE hn::Vec<DW> GatherBlocks(DW d, const T* const* rows, int64_t at) {
  const hn::BlockDFromD<DW> d128;
  const auto load = [&](size_t key) HWY_ATTR {
    return hn::LoadU(d128,
                     reinterpret_cast<const hn::TFromD<DW>*>(rows[key] + at));
  };
  auto v = hn::ResizeBitCast(d, load(0));
#if HWY_MAX_BYTES >= 32
  v = hn::InsertBlock<1>(v, load(4));
#endif
#if HWY_MAX_BYTES >= 64
  v = hn::InsertBlock<2>(v, load(8));
  v = hn::InsertBlock<3>(v, load(12));
#endif
  return v;
}

// Words at + 0..3 of a vector's worth of keys, transposed: out[w] has word w of
// key l in lane l.
template <class DW, class T>
HWY_INLINE void TransposeWords(DW d, const T* const* rows, int64_t at,
                               hn::Vec<DW> (&out)[4]) {
  const hn::Repartition<uint64_t, DW> d64;
  const auto r0 = GatherBlocks(d, rows, at);
  const auto r1 = GatherBlocks(d, rows + 1, at);
  const auto r2 = GatherBlocks(d, rows + 2, at);
  const auto r3 = GatherBlocks(d, rows + 3, at);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  out[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  out[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  out[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  out[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}

HWY_INLINE float Widen(float value) { return value; }
HWY_INLINE float Widen(BF16 value) { return ToFloat(value); }

// Dimensions [dim, head_dim) of one vector of keys, one by one.
template <class T>
HWY_INLINE void TransposeTail(const T* const* rows, int64_t lanes, int64_t dim,
                              int64_t head_dim, float* keys) {
  for (; dim < head_dim; ++dim) {
    for (int64_t k = 0; k < lanes; ++k) {
      keys[dim * kSubBlock + k] = Widen(rows[k][dim]);
    }
  }
}

// keys: [head_dim, kSubBlock] from kSubBlock token rows. Prefetches `next`.
template <class T>
HWY_INLINE void UnpackKeys(const float* const* rows, int64_t head_dim,
                           const TokenRange<T>& next, float* keys) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < kSubBlock; k += N) {
    const std::byte* const ahead = next.Ahead(k);
    int64_t dim = 0;
    for (; dim + 4 <= head_dim; dim += 4) {
      PrefetchBytes(ahead, 4 * dim * N, 16 * N);
      hn::Vec<decltype(d)> words[4];
      TransposeWords(d, rows + k, dim, words);
      float* to = keys + dim * kSubBlock + k;
      hn::Store(words[0], d, to);
      hn::Store(words[1], d, to + kSubBlock);
      hn::Store(words[2], d, to + 2 * kSubBlock);
      hn::Store(words[3], d, to + 3 * kSubBlock);
    }
    TransposeTail(rows + k, N, dim, head_dim, keys + k);
  }
}

// As above. Two bf16 travel in one 32-bit word, and part after the transpose.
template <class T>
HWY_INLINE void UnpackKeys(const BF16* const* rows, int64_t head_dim,
                           const TokenRange<T>& next, float* keys) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<uint32_t> du;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const auto high_half = hn::Set(du, 0xFFFF0000u);
  for (int64_t k = 0; k < kSubBlock; k += N) {
    const std::byte* const ahead = next.Ahead(k);
    int64_t dim = 0;
    for (; dim + 8 <= head_dim; dim += 8) {
      PrefetchBytes(ahead, 2 * dim * N, 16 * N);
      hn::Vec<decltype(du)> words[4];
      TransposeWords(du, rows + k, dim, words);
      float* to = keys + dim * kSubBlock + k;
      HWY_UNROLL(4)
      for (int w = 0; w < 4; ++w) {
        const auto even = hn::BitCast(d, hn::ShiftLeft<16>(words[w]));
        const auto odd = hn::BitCast(d, hn::And(words[w], high_half));
        hn::Store(even, d, to + 2 * w * kSubBlock);
        hn::Store(odd, d, to + (2 * w + 1) * kSubBlock);
      }
    }
    TransposeTail(rows + k, N, dim, head_dim, keys + k);
  }
}

template <class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const BF16* p) {
  const hn::Repartition<uint32_t, D> du;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

// values: [tokens, stride]; zeros from head_dim on. Prefetches `next`.
template <class T>
HWY_INLINE void UnpackValues(const T* const* rows, int64_t tokens,
                             int64_t head_dim, int64_t stride,
                             const TokenRange<T>& next, float* values) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kRun = 16;  // tokens prefetched from one address
  const int64_t row_bytes = head_dim * static_cast<int64_t>(sizeof(T));
  const std::byte* ahead = nullptr;
  for (int64_t t = 0; t < tokens; ++t) {
    if (t % kRun == 0) ahead = next.Ahead(t);
    PrefetchBytes(ahead, t % kRun * row_bytes, row_bytes);
    float* to = values + t * stride;
    int64_t dim = 0;
    for (; dim + N <= head_dim; dim += N) {
      hn::Store(LoadWide(d, rows[t] + dim), d, to + dim);
    }
    for (; dim < head_dim; ++dim) to[dim] = Widen(rows[t][dim]);
    for (; dim < stride; ++dim) to[dim] = 0.0f;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_UNPACK_INL_H_
