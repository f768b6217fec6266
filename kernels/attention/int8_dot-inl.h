// Products of 16-bit factors with the bytes of an int8 cache, and the sums of a
// register tile of them. Included once per Highway target.
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

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_DOT_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_DOT_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_DOT_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_DOT_INL_H_
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

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_DOT_INL_H_
