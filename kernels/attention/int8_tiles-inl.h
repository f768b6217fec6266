// The two integer products of attention over an int8 cache, as register tiles.
// Included once per Highway target.
//
//   scores[r, k] = (sum_d query[r, d] key[k, d]) * key_scale[k] * row scale[r]
//   mix[r, d]    = (sum_k weight[r, k] value[k, d]) * weight scale[r]

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_dot-inl.h"
#include "kernels/attention/int8_page.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Queries as the score tiles read them.
struct Int8Queries {
  const std::byte* codes;  // [rows, 2 * padded dim]: high bytes then low bytes
                           // (kVnni), or words, four dims as 0 2 1 3
  const int32_t* offsets;  // [rows], -128 * sum of the codes
  const float* scales;     // [rows]
  int64_t stride;          // bytes between rows: 2 * padded dim
  int64_t quads;           // lines of a group that hold dimensions

  Int8Queries From(int64_t row) const {
    return {codes + row * stride, offsets + row, scales + row, stride, quads};
  }
};

// Groups of a block to multiply, and what to prefetch meanwhile: of the lines
// of the group at the same index in `ahead`, those at fetch_first and every
// fetch_step after it, so that several walks share the lines evenly.
struct GroupWalk {
  KeyRange range;
  const std::byte* const* groups;  // [kBlockGroups]
  const std::byte* const* ahead;   // [kBlockGroups], all valid
  int64_t fetch_first;
  int64_t fetch_step;  // 0: nothing
};

// Tells the steps of a tile's passes which lines to prefetch, at an even pace.
class FetchPace {
 public:
  FetchPace(const GroupWalk& walk, int64_t passes)
      : line_(walk.fetch_first),
        step_(walk.fetch_step),
        every_(walk.fetch_step * passes),
        left_(every_ == 0 ? -1 : every_) {}

  // True if it is time to prefetch line(), which then moves on.
  HWY_INLINE bool Due() { return --left_ == 0; }
  HWY_INLINE int64_t Next() {
    left_ = every_;
    const int64_t line = line_;
    line_ += step_;
    return line;
  }

 private:
  int64_t line_;
  const int64_t step_;
  const int64_t every_;
  int64_t left_;
};

HWY_INLINE void PrefetchLine(const std::byte* p) {
  __builtin_prefetch(p, /*write=*/0, /*locality=*/3);
}

// Scores of kRows rows and the kLines groups from `first` on.
// key_scales: [kKeyBlock]; scores: [kRows, kKeyBlock].
template <bool kVnni, int kRows, int kLines>
HWY_INLINE void Int8ScoreTile(const Int8Queries& q, const GroupWalk& walk,
                              int64_t first, const float* key_scales,
                              float* scores) {
  const hn::ScalableTag<float> d;
  constexpr int kVectors = kLines * kLineVectors;
  using Sums = TileSums<kVnni, kRows, kVectors>;
  Sums sums;
  sums.Clear();
  const std::byte* base[kLines];
  const std::byte* ahead[kLines];
  HWY_UNROLL(4)
  for (int g = 0; g < kLines; ++g) {
    base[g] = walk.groups[first + g];
    ahead[g] = walk.ahead[first + g];
  }
  FetchPace pace(walk, Sums::kPasses);
  for (int pass = 0; pass < Sums::kPasses; ++pass) {
    for (int64_t i = 0; i < q.quads; ++i) {
      if (pace.Due()) {
        const int64_t at = pace.Next() * 64;
        HWY_UNROLL(4)
        for (int g = 0; g < kLines; ++g) PrefetchLine(ahead[g] + at);
      }
      Int8Sums line[kVectors];
      HWY_UNROLL(8)
      for (int c = 0; c < kVectors; ++c) {
        line[c] = LoadLine(base[c / kLineVectors] + i * 64 +
                           c % kLineVectors * HWY_MAX_BYTES);
      }
      sums.template Add<false>(pass, line, q.codes + i * (kVnni ? 4 : 8),
                               q.stride / 2, q.stride);
    }
    sums.EndPass(pass);
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    const auto offset = hn::Set(Int8Tag(), q.offsets[r]);
    const auto scale = hn::Set(d, q.scales[r]);
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      const int64_t column =
          first * kInt8Group + c * static_cast<int64_t>(hn::Lanes(d));
      const auto dot = hn::ConvertTo(d, hn::Add(sums.sums[r][c], offset));
      const auto key = hn::Load(d, key_scales + column);
      hn::Store(hn::Mul(hn::Mul(dot, key), scale), d,
                scores + r * kKeyBlock + column);
    }
  }
}

template <bool kVnni, int kRows>
HWY_NOINLINE void Int8ScoreRows(const Int8Queries& q, const GroupWalk& walk,
                                const float* key_scales, float* scores) {
  int64_t g = walk.range.begin;
  for (; g + kTileLines <= walk.range.end; g += kTileLines) {
    Int8ScoreTile<kVnni, kRows, kTileLines>(q, walk, g, key_scales, scores);
  }
  if constexpr (kTileLines > 1) {
    if (g + 2 <= walk.range.end) {
      Int8ScoreTile<kVnni, kRows, 2>(q, walk, g, key_scales, scores);
      g += 2;
    }
    if (g < walk.range.end) {
      Int8ScoreTile<kVnni, kRows, 1>(q, walk, g, key_scales, scores);
    }
  }
}

// Weights of a tile's rows, kWeightBytes apart, and what a mix tile needs.
struct Int8Weights {
  const std::byte* weights;  // [rows, kWeightBytes]
  const float* scales;       // [rows]
};

// mix [kRows, padded_dim]: kVectors vectors from dimension `dim` on.
template <bool kVnni, int kRows, int kVectors>
HWY_INLINE void Int8MixTile(const Int8Weights& w, const GroupWalk& walk,
                            int64_t dim, int64_t padded_dim, float* mix) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  using Sums = TileSums<kVnni, kRows, kVectors>;
  Sums sums;
  sums.Clear();
  FetchPace pace(walk, Sums::kPasses);  // a line: of these dims, one quad's
  for (int pass = 0; pass < Sums::kPasses; ++pass) {
    for (int64_t g = walk.range.begin; g < walk.range.end; ++g) {
      const std::byte* const from = walk.groups[g] + dim * 4;
      const std::byte* const weights = w.weights + WeightOffset<kVnni>(g, 0);
      HWY_UNROLL(4)
      for (int quad = 0; quad < 4; ++quad) {
        const int64_t at = quad * 4 * padded_dim;
        if (pace.Due()) {
          const int64_t next = walk.range.begin * 4 + pace.Next();
          const std::byte* const to =
              walk.ahead[next / 4] + (next % 4 * padded_dim + dim) * 4;
          for (int64_t b = 0; b < 4 * N * kVectors; b += 64) {
            PrefetchLine(to + b);
          }
        }
        Int8Sums line[kVectors];
        HWY_UNROLL(8)
        for (int c = 0; c < kVectors; ++c) {
          line[c] = LoadLine(from + at + c * HWY_MAX_BYTES);
        }
        sums.template Add<true>(pass, line,
                                weights + WeightOffset<kVnni>(0, quad),
                                kKeyBlock, kWeightBytes);
      }
    }
    sums.EndPass(pass);
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    const auto scale = hn::Set(d, w.scales[r]);
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      hn::Store(hn::Mul(hn::ConvertTo(d, sums.sums[r][c]), scale), d,
                mix + r * padded_dim + dim + c * N);
    }
  }
}

template <bool kVnni, int kRows>
HWY_NOINLINE void Int8MixRows(const Int8Weights& w, const GroupWalk& walk,
                              int64_t padded_dim, float* mix) {
  constexpr int kVectors = kTileLines * kLineVectors;
  const int64_t N = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  int64_t dim = 0;
  if constexpr (kRows == 1 && kTileLines > 1) {
    // Decode without groups is bound by memory, and should read it in order.
    for (; dim + 8 * N <= padded_dim; dim += 8 * N) {
      Int8MixTile<kVnni, kRows, 8>(w, walk, dim, padded_dim, mix);
    }
  }
  for (; dim + kVectors * N <= padded_dim; dim += kVectors * N) {
    Int8MixTile<kVnni, kRows, kVectors>(w, walk, dim, padded_dim, mix);
  }
  if constexpr (kVectors > 2) {
    if (dim + 2 * N <= padded_dim) {
      Int8MixTile<kVnni, kRows, 2>(w, walk, dim, padded_dim, mix);
      dim += 2 * N;
    }
    if (dim < padded_dim) {
      Int8MixTile<kVnni, kRows, 1>(w, walk, dim, padded_dim, mix);
    }
  }
}

// Calls Function<kVnni, rows>(...) for rows in [1, kInt8Rows].
#define NIBBLE_DISPATCH_INT8(rows, Function, ...) \
  switch (rows) {                                 \
    case 1:                                       \
      return Function<kVnni, 1>(__VA_ARGS__);     \
    case 2:                                       \
      return Function<kVnni, 2>(__VA_ARGS__);     \
    case 3:                                       \
      return Function<kVnni, 3>(__VA_ARGS__);     \
    case 4:                                       \
      return Function<kVnni, 4>(__VA_ARGS__);     \
    case 5:                                       \
      if constexpr (kVnni) {                      \
        return Function<kVnni, 5>(__VA_ARGS__);   \
      }                                           \
      break;                                      \
    case 6:                                       \
      if constexpr (kVnni) {                      \
        return Function<kVnni, 6>(__VA_ARGS__);   \
      }                                           \
      break;                                      \
  }

template <bool kVnni>
HWY_INLINE void Int8Scores(int64_t rows, const Int8Queries& q,
                           const GroupWalk& walk, const float* key_scales,
                           float* scores) {
  NIBBLE_DISPATCH_INT8(rows, Int8ScoreRows, q, walk, key_scales, scores);
}

template <bool kVnni>
HWY_INLINE void Int8Mix(int64_t rows, const Int8Weights& w,
                        const GroupWalk& walk, int64_t padded_dim, float* mix) {
  NIBBLE_DISPATCH_INT8(rows, Int8MixRows, w, walk, padded_dim, mix);
}

#undef NIBBLE_DISPATCH_INT8

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
