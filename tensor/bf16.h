// The two 16-bit floating-point formats, as storage types.
//
//   BF16 b = ToBF16(3.14159f);  // rounds to nearest, ties to even
//   float f = ToFloat(b);       // exact
//
//   bf16: sign 1 | exponent 8 | fraction 7   (the top half of a float)
//   f16:  sign 1 | exponent 5 | fraction 10  (IEEE 754 binary16)
//
// Widening is exact. Narrowing rounds to nearest, ties to even; a value above
// the largest finite one becomes infinity; a NaN stays a NaN and becomes quiet;
// subnormal results are kept. None of it depends on the rounding mode.
// For whole rows use kernels/convert.
#ifndef NIBBLE_TENSOR_BF16_H_
#define NIBBLE_TENSOR_BF16_H_

#include <cstdint>
#include <cstring>

namespace nibble {

struct BF16 {
  uint16_t bits;
};

struct F16 {
  uint16_t bits;
};

inline bool operator==(BF16 a, BF16 b) { return a.bits == b.bits; }
inline bool operator!=(BF16 a, BF16 b) { return a.bits != b.bits; }
inline bool operator==(F16 a, F16 b) { return a.bits == b.bits; }
inline bool operator!=(F16 a, F16 b) { return a.bits != b.bits; }

namespace internal {

inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float FloatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace internal

inline float ToFloat(BF16 value) {
  return internal::FloatOfBits(static_cast<uint32_t>(value.bits) << 16);
}

// Free of branches, so that loops over it vectorise.
inline float ToFloat(F16 value) {
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7FFFu) << 13;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  // The fields now stand where a float has them, with an exponent biased by 15
  // in place of 127. Multiplying by 2^(127 - 15) corrects the bias exactly, and
  // normalises subnormals on the way.
  const float scaled =
      internal::FloatOfBits(magnitude) * internal::FloatOfBits(0x77800000u);
  // An all-ones exponent (infinity, NaN) must become all ones again.
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u : 0u;
  return internal::FloatOfBits(internal::BitsOfFloat(scaled) | special | sign);
}

inline BF16 ToBF16(float value) {
  const uint32_t bits = internal::BitsOfFloat(value);
  // Adding just under half of the dropped part, plus the kept part's last bit,
  // carries exactly when nearest-even rounds up.
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return BF16{static_cast<uint16_t>(is_nan ? quiet_nan : rounded)};
}

inline F16 ToF16(float value) {
  const uint32_t bits = internal::BitsOfFloat(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t result;
  if (magnitude > 0x7F800000u) {  // NaN: keep the top of the payload, quiet.
    result = 0x7E00u | ((magnitude >> 13) & 0x03FFu);
  } else if (magnitude >= 0x477FF000u) {  // 65520 and up round to infinity.
    result = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // Below 2^-14: subnormal or zero.
    // Adding 0.5 puts the last bit of the sum at 2^-24, the unit of an f16
    // subnormal, so that the addition itself rounds to nearest even. Done on
    // integers, to be free of the rounding mode.
    const uint32_t exponent = magnitude >> 23;
    const uint32_t fraction = (magnitude & 0x007FFFFFu) | 0x00800000u;
    // Value = fraction * 2^(exponent - 150); in units of 2^-24 it is
    // fraction >> (126 - exponent).
    const uint32_t shift = 126u - exponent;
    if (shift > 24u) {
      result = 0;  // Below half of the smallest subnormal.
    } else {
      const uint32_t kept = fraction >> shift;
      const uint32_t dropped = fraction & ((1u << shift) - 1u);
      const uint32_t half = 1u << (shift - 1u);
      const bool up = dropped > half || (dropped == half && (kept & 1u));
      result = kept + (up ? 1u : 0u);
    }
  } else {
    const uint32_t rebiased = magnitude - 0x38000000u;
    result = (rebiased + 0x0FFFu + ((rebiased >> 13) & 1u)) >> 13;
  }
  return F16{static_cast<uint16_t>(result | sign)};
}

}  // namespace nibble

#endif  // NIBBLE_TENSOR_BF16_H_
