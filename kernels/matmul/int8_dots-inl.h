// How four unsigned codes meet four signed values and add to an int32, by each
// instruction there is for it, once per Highway target.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_DOTS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_DOTS_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_DOTS_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_DOTS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The same outputs as one TileF32, as bytes, pairs and sums.
using TileI32 = hn::RebindToSigned<TileF32>;
using TileI16 = hn::Repartition<int16_t, TileF32>;
using TileI8 = hn::Repartition<int8_t, TileF32>;
using TileU8 = hn::Repartition<uint8_t, TileF32>;
using VI32 = hn::Vec<TileI32>;
using VI16 = hn::Vec<TileI16>;
using VI8 = hn::Vec<TileI8>;
using VU8 = hn::Vec<TileU8>;
inline constexpr int kRecordVectors = 2 * kVectorsPerTile;

// A Dot has
//   kMaxRows       rows of a group
//   kSegmentQuads  quads after which Fold() must be called
//   kUnrolledQuads so many of them are unrolled
//   kSignedCodes   Add() takes code - 128 of int8 weights, so zero is 0
//   Sum            one vector of sums
//   Start(v)       a Sum of v
//   Add(w, a, s)   s += w . a, quads of bytes
//   Fold(s)        makes room for another segment
//   Value(s)       the sums, after Fold()

// VPDPBUSD of AVX512_VNNI and AVX-VNNI. In assembly, because Highway's first
// target that has it demands half a dozen other extensions, which Cascade Lake
// lacks, and none has AVX-VNNI.
struct VnniDot {
  // With 32 registers of 512 bits, 6 rows x 2 tiles make 12 sums and 12 totals,
  // beside 2 of weights and some of activations. 12 rows, which would read the
  // weights half as often, leave no registers for the totals: 60 against 70% of
  // the peak at g32, 79 against 83% at g128. With 16 registers of 256 bits
  // there are 12 sums, and the totals are in L1.
  static constexpr int kMaxRows = 6;
  static constexpr int64_t kSegmentQuads = 16;
  static constexpr int kUnrolledQuads = 4;
  static constexpr bool kSignedCodes = false;
  using Sum = VI32;
  static HWY_INLINE Sum Start(VI32 v) { return v; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
    auto sum = s.raw;  // an asm operand in memory would keep all sums there
#if HWY_CAP_GE512
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w.raw), "v"(a.raw));
#else
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w.raw), "x"(a.raw));
#endif
    s.raw = sum;
  }
  static HWY_INLINE void Fold(Sum&) {}
  static HWY_INLINE VI32 Value(const Sum& s) { return s; }
};

// Keeps the compiler from adding in another order: g++ builds trees of products
// that do not fit the registers.
template <class V>
HWY_INLINE void KeepOrder(V& v) {
  auto raw = v.raw;
  asm("" : "+v"(raw));
  v.raw = raw;
}

// VPMADDUBSW for codes of 4 bits: eight of its results, at most
// 2 * 15 * 127 = 3810 each, are summed in 16 bits.
struct MaddubsDot {
  // With 16 registers, 4 rows reach 78% of the peak at g128, 6 rows 74%.
  static constexpr int kMaxRows = HWY_CAP_GE512 ? 6 : 4;
  static constexpr int64_t kSegmentQuads = 8;
  static constexpr int kUnrolledQuads = 8;
  static constexpr bool kSignedCodes = false;
  struct Sum {
    VI32 total;
    VI16 part;
  };
  static HWY_INLINE Sum Start(VI32 v) { return {v, hn::Zero(TileI16())}; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
    s.part = hn::Add(s.part, hn::SatWidenMulPairwiseAdd(TileI16(), w, a));
    KeepOrder(s.part);
  }
  static HWY_INLINE void Fold(Sum& s) {
    s.total = hn::Add(s.total, hn::WidenMulPairwiseAdd(TileI32(), s.part,
                                                       hn::Set(TileI16(), 1)));
    s.part = hn::Zero(TileI16());
  }
  static HWY_INLINE VI32 Value(const Sum& s) { return s.total; }
};
static_assert(MaddubsDot::kSegmentQuads * 2 * 15 * 127 < 32768);

// The same for codes of 8 bits. Of unsigned ones VPMADDUBSW would saturate; so
// |w|, up to 128, meets the value with the sign of w: 2 * 128 * 127 = 32512.
struct SignedMaddubsDot {
  static constexpr int kMaxRows = MaddubsDot::kMaxRows;
  static constexpr int64_t kSegmentQuads = 16;
  static constexpr int kUnrolledQuads = 4;
  static constexpr bool kSignedCodes = true;
  using Sum = VI32;
  static HWY_INLINE Sum Start(VI32 v) { return v; }
  static HWY_INLINE void Add(VU8 w, VI8 a, Sum& s) {
    const VI8 weight = hn::BitCast(TileI8(), w);
    const VI16 pairs = hn::SatWidenMulPairwiseAdd(
        TileI16(), hn::BitCast(TileU8(), hn::Abs(weight)),
        hn::IfNegativeThenNegOrUndefIfZero(weight, a));
    s = hn::Add(
        s, hn::WidenMulPairwiseAdd(TileI32(), pairs, hn::Set(TileI16(), 1)));
  }
  static HWY_INLINE void Fold(Sum&) {}
  static HWY_INLINE VI32 Value(const Sum& s) { return s; }
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_DOTS_INL_H_
