#include "kernels/gemm/words.h"

#include <cstddef>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/words.cc"
#include "kernels/elementwise/simd_targets.h"
// After simd_targets.h.
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Quad = hn::CappedTag<uint32_t, 4>;
using Pair = hn::RepartitionToWide<Quad>;

HWY_INLINE hn::Vec<Quad> LoadQuad(const uint8_t* in) {
  return hn::LoadU(Quad(), reinterpret_cast<const uint32_t*>(in));
}
HWY_INLINE void StoreQuad(hn::Vec<Quad> quad, uint8_t* out) {
  hn::StoreU(quad, Quad(), reinterpret_cast<uint32_t*>(out));
}

// A square of 4 x 4 words; strides in bytes.
HWY_INLINE void TransposeSquare(const uint8_t* in, int64_t in_stride,
                                uint8_t* out, int64_t out_stride) {
  const Quad d;
  const Pair pair;
  const auto r0 = LoadQuad(in);
  const auto r1 = LoadQuad(in + in_stride);
  const auto r2 = LoadQuad(in + 2 * in_stride);
  const auto r3 = LoadQuad(in + 3 * in_stride);
  const auto low01 = hn::BitCast(pair, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pair, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pair, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pair, hn::InterleaveUpper(d, r2, r3));
  StoreQuad(hn::BitCast(d, hn::InterleaveLower(pair, low01, low23)), out);
  StoreQuad(hn::BitCast(d, hn::InterleaveUpper(pair, low01, low23)),
            out + out_stride);
  StoreQuad(hn::BitCast(d, hn::InterleaveLower(pair, high01, high23)),
            out + 2 * out_stride);
  StoreQuad(hn::BitCast(d, hn::InterleaveUpper(pair, high01, high23)),
            out + 3 * out_stride);
}

void Transpose(const uint8_t* in, int64_t in_stride, int64_t rows, int64_t cols,
               uint8_t* out, int64_t out_stride) {
  const auto copy = [&](int64_t row_begin, int64_t row_end, int64_t col_begin,
                        int64_t col_end) {
    for (int64_t i = row_begin; i < row_end; ++i) {
      for (int64_t j = col_begin; j < col_end; ++j) {
        std::memcpy(out + j * out_stride + i * 4, in + i * in_stride + j * 4,
                    4);
      }
    }
  };
  const int64_t square_rows = rows / 4 * 4, square_cols = cols / 4 * 4;
  for (int64_t j = 0; j < square_cols; j += 4) {
    for (int64_t i = 0; i < square_rows; i += 4) {
      TransposeSquare(in + i * in_stride + j * 4, in_stride,
                      out + j * out_stride + i * 4, out_stride);
    }
  }
  copy(0, rows, square_cols, cols);
  copy(square_rows, rows, 0, square_cols);
}

// The bits of ToBF16(value) in the high half, and others in the low one.
template <class D>
HWY_INLINE hn::Vec<D> RoundBits(D d, hn::Vec<D> bits) {
  const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
  const auto rounded =
      hn::Add(bits, hn::Add(last, hn::Set(d, uint32_t{0x7FFF})));
  const auto is_nan =
      hn::Gt(hn::And(bits, hn::Set(d, 0x7FFFFFFFu)), hn::Set(d, 0x7F800000u));
  return hn::IfThenElse(is_nan, hn::Or(bits, hn::Set(d, 0x400000u)), rounded);
}

void Pair2(const float* even, const float* odd, size_t count, uint32_t* words) {
  const hn::ScalableTag<uint32_t> d;
  const hn::RebindToFloat<decltype(d)> df;
  const size_t lanes = hn::Lanes(d);
  const auto join = [&](auto low, auto high) {
    return hn::Or(hn::ShiftRight<16>(RoundBits(d, low)),
                  hn::And(RoundBits(d, high), hn::Set(d, 0xFFFF0000u)));
  };
  size_t j = 0;
  for (; j + lanes <= count; j += lanes) {
    const auto low = hn::BitCast(d, hn::LoadU(df, even + j));
    const auto high =
        odd == nullptr ? hn::Zero(d) : hn::BitCast(d, hn::LoadU(df, odd + j));
    hn::StoreU(join(low, high), d, words + j);
  }
  if (j == count) return;
  const auto low = hn::BitCast(d, hn::LoadN(df, even + j, count - j));
  const auto high = odd == nullptr
                        ? hn::Zero(d)
                        : hn::BitCast(d, hn::LoadN(df, odd + j, count - j));
  hn::StoreN(join(low, high), d, words + j, count - j);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Transpose);
HWY_EXPORT(Pair2);

void TransposeWords(const void* in, int64_t in_stride, int64_t rows,
                    int64_t cols, void* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(Transpose)
  (static_cast<const uint8_t*>(in), 4 * in_stride, rows, cols,
   static_cast<uint8_t*>(out), 4 * out_stride);
}

void PairRows(const float* even, const float* odd, int64_t count,
              uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(Pair2)(even, odd, static_cast<size_t>(count), words);
}

}  // namespace nibble
#endif  // HWY_ONCE
