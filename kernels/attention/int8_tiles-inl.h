// The two integer products of attention over an int8 cache, as register tiles.
// Included once per Highway target.
//
//   scores[r, k] = (sum_d query[r, d] key[k, d]) * key_scale[k] * row scale[r]
//   mix[r, d]    = (sum_k weight[r, k] value[k, d]) * weight scale[r]
//
// Queries and weights have 16 bits, keys and values 8. A line of the cache is
// one operand (int8_page.h), and there are two ways to multiply it:
//
//   kVnni  vpdpbusd takes the line as it is, once for each byte of the 16 bits.
//          Few rows have sums for both, so that a line is read once; more rows
//          take two passes over a tile, and shift their sums by 8 in between.
//   else   the even and the odd bytes of the line, widened to words, times
//          pairs of words, by vpmaddwd and an addition.
//
// Both do 32 products per lane and instruction pair, and the sums are exact.

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_TILES_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_page.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kBlockGroups = kKeyBlock / kInt8Group;

using Int8Tag = hn::ScalableTag<int32_t>;
using Int8Sums = hn::Vec<Int8Tag>;

// Vectors of one line.
inline constexpr int kLineVectors = 64 / HWY_MAX_BYTES;

// A tile is kInt8Rows rows by up to kTileLines lines, so that the accumulators,
// the loaded vectors (twice as many when they are split into words) and a
// broadcast fit the registers: 24 + 4 + 1 and 16 + 8 + 2 of 32, 12 + 2 + 1
// and 8 + 4 + 2 of 16.
template <bool kVnni>
inline constexpr int kInt8Rows = kVnni ? 6 : 4;
inline constexpr int kTileLines = HWY_MAX_BYTES >= 64 ? 4 : 1;

// Bytes of the weights of one row and key block, and of the query codes per
// dimension: two for each.
inline constexpr int64_t kWeightBytes = 2 * kKeyBlock;

// Byte where the weights of tokens [16 group + 4 quad, + 4) lie: of a plane
// (kVnni), whose second is kKeyBlock bytes on, or of the words. It is the order
// that packing the vectors of int8_softmax-inl.h leaves.
template <bool kVnni>
constexpr int64_t WeightOffset(int64_t group, int64_t quad) {
  if (HWY_MAX_BYTES >= 64) {
    return kVnni ? group / 4 * 64 + quad * 16 + group % 4 * 4
                 : group / 2 * 64 + quad * 16 + group % 2 * 8;
  }
  return kVnni ? group / 2 * 32 + quad % 2 * 16 + group % 2 * 8 + quad / 2 * 4
               : group * 32 + quad % 2 * 16 + quad / 2 * 8;
}

// sums + products of four unsigned and four signed bytes per lane.
HWY_INLINE Int8Sums DotBytes(Int8Sums sums, Int8Sums unsigned_bytes,
                             Int8Sums signed_bytes) {
  // By name, since the target's flags cover AVX-512 without VNNI and AVX2
  // without AVX-VNNI as well; only rows of those ISAs come here.
#if HWY_TARGET == HWY_AVX2
  asm("%{vex%} vpdpbusd %2, %1, %0"
      : "+x"(sums.raw)
      : "x"(unsigned_bytes.raw), "x"(signed_bytes.raw));
#else
  asm("vpdpbusd %2, %1, %0"
      : "+v"(sums.raw)
      : "v"(unsigned_bytes.raw), "v"(signed_bytes.raw));
#endif
  return sums;
}

HWY_INLINE Int8Sums LoadLine(const std::byte* p) {
  return hn::Load(Int8Tag(), reinterpret_cast<const int32_t*>(p));
}

// Four bytes, or two words, in every lane.
HWY_INLINE Int8Sums Broadcast(const std::byte* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof(word));
  return hn::Set(Int8Tag(), word);
}

// Words of the even or the odd bytes.
template <bool kSigned, bool kOdd>
HWY_INLINE Int8Sums WordsOf(Int8Sums line) {
  const Int8Tag d;
  if constexpr (kSigned) {
    const hn::Repartition<int16_t, Int8Tag> d16;
    auto words = hn::BitCast(d16, line);
    if constexpr (!kOdd) words = hn::ShiftLeft<8>(words);
    return hn::BitCast(d, hn::ShiftRight<8>(words));
  } else {
    const hn::Repartition<uint16_t, Int8Tag> d16;
    const auto words = hn::BitCast(d16, line);
    return hn::BitCast(d, kOdd ? hn::ShiftRight<8>(words)
                               : hn::And(words, hn::Set(d16, 0x00FF)));
  }
}

HWY_INLINE Int8Sums DotWords(Int8Sums sums, Int8Sums a, Int8Sums b) {
  const Int8Tag d;
  const hn::Repartition<int16_t, Int8Tag> d16;
  return hn::Add(sums, hn::WidenMulPairwiseAdd(d, hn::BitCast(d16, a),
                                               hn::BitCast(d16, b)));
}

// sums[r][c] += the products of the line vectors with a row's words, four per
// lane, at words + r * stride.
template <bool kSigned, int kRows, int kVectors>
HWY_INLINE void AddWords(const Int8Sums (&line)[kVectors],
                         const std::byte* words, int64_t stride,
                         Int8Sums (&sums)[kRows][kVectors]) {
  Int8Sums even[kVectors], odd[kVectors];
  HWY_UNROLL(8)
  for (int c = 0; c < kVectors; ++c) {
    even[c] = WordsOf<kSigned, false>(line[c]);
    odd[c] = WordsOf<kSigned, true>(line[c]);
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    const Int8Sums first = Broadcast(words + r * stride);
    const Int8Sums second = Broadcast(words + r * stride + 4);
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      sums[r][c] = DotWords(sums[r][c], even[c], first);
      sums[r][c] = DotWords(sums[r][c], odd[c], second);
    }
  }
}

// The same for one byte of the row's 16 bits, signed if kSigned says that the
// line is not.
template <bool kSigned, int kRows, int kVectors>
HWY_INLINE void AddBytes(const Int8Sums (&line)[kVectors],
                         const std::byte* bytes, int64_t stride,
                         Int8Sums (&sums)[kRows][kVectors]) {
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    const Int8Sums four = Broadcast(bytes + r * stride);
    HWY_UNROLL(8)
    for (int c = 0; c < kVectors; ++c) {
      sums[r][c] = kSigned ? DotBytes(sums[r][c], four, line[c])
                           : DotBytes(sums[r][c], line[c], four);
    }
  }
}

// The sums of a tile.
template <bool kVnni, int kRows, int kVectors>
struct TileSums {
  // Both bytes of the 16 bits in one pass, while the accumulators allow it.
  static constexpr bool kBoth = kVnni && 2 * kRows * kVectors <= 24;
  static constexpr int kPasses = kVnni && !kBoth ? 2 : 1;

  HWY_INLINE void Clear() {
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(8)
      for (int c = 0; c < kVectors; ++c) {
        sums[r][c] = hn::Zero(Int8Tag());
        if constexpr (kBoth) high[r][c] = hn::Zero(Int8Tag());
      }
    }
  }

  // Adds the products of one line's vectors. Rows' bits lie `stride` apart, the
  // bytes of the second plane (kVnni) `plane` on from the first. kSigned says
  // what the line's bytes are.
  template <bool kSigned>
  HWY_INLINE void Add(int pass, const Int8Sums (&line)[kVectors],
                      const std::byte* bits, int64_t plane, int64_t stride) {
    if constexpr (!kVnni) {
      AddWords<kSigned>(line, bits, stride, sums);
    } else if constexpr (kBoth) {
      AddBytes<kSigned>(line, bits, stride, high);
      AddBytes<kSigned>(line, bits + plane, stride, sums);
    } else {
      AddBytes<kSigned>(line, bits + pass * plane, stride, sums);
    }
  }

  HWY_INLINE void EndPass(int pass) {
    if (!kVnni || (!kBoth && pass == 1)) return;
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(8)
      for (int c = 0; c < kVectors; ++c) {
        if constexpr (kBoth) {
          sums[r][c] = hn::Add(sums[r][c], hn::ShiftLeft<8>(high[r][c]));
        } else {
          sums[r][c] = hn::ShiftLeft<8>(sums[r][c]);
        }
      }
    }
  }

  Int8Sums sums[kRows][kVectors];
  Int8Sums high[kBoth ? kRows : 1][kBoth ? kVectors : 1];
};

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
