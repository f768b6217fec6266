#include "kernels/attention/quantize_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/elementwise/simd_targets.h"
#include "tensor/bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/quantize_head.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"

// What all targets share; compiled once.
#ifndef NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_ONCE_
#define NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_ONCE_
namespace nibble {
namespace {

constexpr uint32_t kInfinityBits = 0x7F800000;
constexpr uint32_t kSmallestBits = 0x0D800000;  // of 2^-100
constexpr BF16 kNanScale{0x7FC0};

// The bits of |x| order like its value, with NaNs above infinity.
uint32_t MagnitudeBits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7FFFFFFF;
}

// The scale of a head whose largest magnitude has these bits, and 1 / scale.
// False if all codes are zero.
bool ScaleOf(uint32_t magnitude_bits, BF16* scale, float* inverse) {
  *scale = magnitude_bits >= kInfinityBits ? kNanScale : BF16{0};
  if (magnitude_bits >= kInfinityBits || magnitude_bits < kSmallestBits) {
    return false;
  }
  float largest;
  std::memcpy(&largest, &magnitude_bits, sizeof(largest));
  const float exact = largest / 127.0f;
  *scale = BF16{static_cast<uint16_t>((MagnitudeBits(exact) + 0xFFFF) >> 16)};
  *inverse = 1.0f / ToFloat(*scale);
  return true;
}

int8_t CodeOf(float x, float inverse) {
  return static_cast<int8_t>(std::nearbyint(x * inverse));
}

BF16 QuantizeScalar(const float* x, int64_t count, int8_t* codes) {
  uint32_t magnitude = 0;
  for (int64_t i = 0; i < count; ++i) {
    magnitude = std::max(magnitude, MagnitudeBits(x[i]));
  }
  BF16 scale;
  float inverse;
  if (!ScaleOf(magnitude, &scale, &inverse)) {
    std::fill_n(codes, count, int8_t{0});
    return scale;
  }
  for (int64_t i = 0; i < count; ++i) codes[i] = CodeOf(x[i], inverse);
  return scale;
}

}  // namespace
}  // namespace nibble
#endif  // NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_ONCE_

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

BF16 Quantize(const float* x, int64_t count, int8_t* codes) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Zero(di);
  int64_t i = 0;
  for (; i + N <= count; i += N) {
    const auto bits = hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i)));
    largest = hn::Max(largest, bits);
  }
  uint32_t magnitude = static_cast<uint32_t>(hn::ReduceMax(di, largest));
  for (int64_t at = i; at < count; ++at) {
    magnitude = std::max(magnitude, MagnitudeBits(x[at]));
  }
  BF16 scale;
  float inverse;
  if (!ScaleOf(magnitude, &scale, &inverse)) {
    std::fill_n(codes, count, int8_t{0});
    return scale;
  }
  const auto factor = hn::Set(d, inverse);
  for (i = 0; i + N <= count; i += N) {
    const auto code = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
  }
  for (; i < count; ++i) codes[i] = CodeOf(x[i], inverse);
  return scale;
}

}  // namespace

QuantizeHeadKernels QuantizeHeadRow(const char* name, Isa isa) {
  return {name, isa, &Quantize};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const QuantizeHeadKernels> QuantizeHeadTable() {
  static const QuantizeHeadKernels kTable[] = {
      {"scalar", Isa::kScalar, &QuantizeScalar},
      NIBBLE_SIMD_ROWS(QuantizeHeadRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
