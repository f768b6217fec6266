// Reading a sub-block of the cache: keys transposed, so that a vector holds one
// dimension of neighbouring keys, and values widened, in registers or into
// buffers for the tiles of tiles-inl.h.
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

  // Rows of the `count` tokens from `first` on, head_dim apart: in place if
  // they are all in the range and on one page, else copied to `copy` [count,
  // head_dim], with zeros for those outside the range.
  const T* Contiguous(int64_t first, int64_t count, T* copy) const {
    const bool inside = first >= begin && first + count <= end;
    if (inside && first % kv.page_tokens + count <= kv.page_tokens) {
      return Row(first - begin);
    }
    for (int64_t t = first; t < first + count; ++t, copy += kv.head_dim) {
      if (t >= begin && t < end) {
        std::copy_n(Row(t - begin), kv.head_dim, copy);
      } else {
        std::fill_n(copy, kv.head_dim, T());
      }
    }
    return copy - count * kv.head_dim;
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
// kOnce: for a single use, past L2 (measured: decode 0-15% faster).
template <bool kOnce>
HWY_INLINE void PrefetchBytes(const std::byte* base, int64_t from,
                              int64_t bytes) {
  if (base == nullptr) return;
  for (int64_t at = 0; at < bytes; at += kLineBytes) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
    __builtin_prefetch(base + from + at, /*write=*/0, kOnce ? 0 : 3);
#else
    hwy::Prefetch(base + from + at);
#endif
  }
}

// Four 32-bit words of every fourth row from `p` on, one 128-bit block each.
// Rows are `stride` elements apart.
template <class DW, class T>
HWY_INLINE hn::Vec<DW> GatherBlocks(DW d, const T* p, int64_t stride) {
  const hn::BlockDFromD<DW> d128;
  const auto load = [&](int64_t row) HWY_ATTR {
    return hn::LoadU(d128,
                     reinterpret_cast<const hn::TFromD<DW>*>(p + row * stride));
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

// The four words at `p` of a vector's worth of rows, transposed: words[w] has
// word w of row l in lane l.
template <class DW, class T>
HWY_INLINE void TransposeWords(DW d, const T* p, int64_t stride,
                               hn::Vec<DW> (&words)[4]) {
  const hn::Repartition<uint64_t, DW> d64;
  const auto r0 = GatherBlocks(d, p, stride);
  const auto r1 = GatherBlocks(d, p + stride, stride);
  const auto r2 = GatherBlocks(d, p + 2 * stride, stride);
  const auto r3 = GatherBlocks(d, p + 3 * stride, stride);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  words[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  words[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  words[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  words[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}

// Dimensions in the four words of TransposeWords.
template <class T>
inline constexpr int64_t kDimsPerStep = 16 / sizeof(T);

// One dimension of transposed words: of f32 the word itself; of bf16 the half
// that holds dimension kHalf of its two.
template <int kHalf, class D>
HWY_INLINE hn::Vec<D> DimOf(D, hn::Vec<D> word) {
  static_assert(kHalf == 0);
  return word;
}
template <int kHalf, class D>
HWY_INLINE hn::Vec<D> DimOf(D d, hn::Vec<hn::RebindToUnsigned<D>> word) {
  if constexpr (kHalf == 0) {
    return hn::BitCast(d, hn::ShiftLeft<16>(word));
  } else {
    const hn::RebindToUnsigned<D> du;
    return hn::BitCast(d, hn::And(word, hn::Set(du, 0xFFFF0000u)));
  }
}

// What a word of the cache's dtype is transposed as.
template <class D>
HWY_INLINE D WordTag(D d, const float*) {
  return d;
}
template <class D>
HWY_INLINE hn::RebindToUnsigned<D> WordTag(D, const BF16*) {
  return {};
}

HWY_INLINE float Widen(float value) { return value; }
HWY_INLINE float Widen(BF16 value) { return ToFloat(value); }

// One dimension, at `p`, of a vector's worth of keys: for what is left of
// head_dim after whole steps.
template <class D, class T>
HWY_INLINE hn::Vec<D> GatherDim(D d, const T* p, int64_t stride) {
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  for (size_t l = 0; l < hn::Lanes(d); ++l) {
    lanes[l] = Widen(p[static_cast<int64_t>(l) * stride]);
  }
  return hn::Load(d, lanes);
}

// keys: [head_dim, kSubBlock], the tokens of the sub-block that starts at token
// `start`, zeros for those outside `tokens`. Prefetches `next`.
// copy: [kSubBlock, head_dim].
template <class T>
HWY_INLINE void UnpackKeys(const TokenRange<T>& tokens, int64_t start,
                           const TokenRange<T>& next, T* copy, float* keys) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t head_dim = tokens.kv.head_dim;
  constexpr int64_t kStep = kDimsPerStep<T>;
  for (int64_t k = 0; k < kSubBlock; k += N) {
    const T* rows = tokens.Contiguous(start + k, N, copy);
    const std::byte* const ahead = next.Ahead(k);
    int64_t dim = 0;
    for (; dim + kStep <= head_dim; dim += kStep) {
      PrefetchBytes<false>(ahead, dim * N * static_cast<int64_t>(sizeof(T)),
                           16 * N);
      float* const to = keys + dim * kSubBlock + k;
      hn::Vec<decltype(WordTag(d, rows))> words[4];
      TransposeWords(WordTag(d, rows), rows + dim, head_dim, words);
      HWY_UNROLL(4)
      for (int w = 0; w < 4; ++w) {
        if constexpr (kStep == 4) {
          hn::Store(words[w], d, to + w * kSubBlock);
        } else {
          hn::Store(DimOf<0>(d, words[w]), d, to + 2 * w * kSubBlock);
          hn::Store(DimOf<1>(d, words[w]), d, to + (2 * w + 1) * kSubBlock);
        }
      }
    }
    for (; dim < head_dim; ++dim) {
      hn::Store(GatherDim(d, rows + dim, head_dim), d,
                keys + dim * kSubBlock + k);
    }
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
    PrefetchBytes<false>(ahead, t % kRun * row_bytes, row_bytes);
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
