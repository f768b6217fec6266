// The constants of attention over an int8 cache, shared by all its variants:
// what makes their bits the same. docs/attention.md derives the errors.
//
// For one row (query head) and one block of 256 keys, with c the codes and s
// the scales of the cache:
//
//   code[d]   = round(q[d] * Q / max|q|)                   Q = MaxQueryCode()
//   score[k]  = float(sum_d code[d] c_key[k, d]) * s_key[k] * row scale + bias
//   p[k]      = 2^(score[k] - max score)                   below 2^-127: 0
//   weight[k] = round(p[k] * s_value[k] * 32767 / S)       S = max s_value
//   mix[d]    = float(sum_k weight[k] c_value[k, d]) * S / 32767
//   sum       = sum of p, in 16 lanes by k modulo 16, then halves added
//
// over the visible keys. Integer sums are exact, so they may be cut and ordered
// at will; every other operation is one IEEE operation per element in the order
// above. score is in units of log 2; blocks are joined as those of float
// caches are.
#ifndef NIBBLE_KERNELS_ATTENTION_INT8_ARITHMETIC_H_
#define NIBBLE_KERNELS_ATTENTION_INT8_ARITHMETIC_H_

#include <algorithm>
#include <cstdint>

namespace nibble {

// Two signed bytes of a query's code: 256 * high + low with both in [-128,
// 127]. Leaves the sum of 512 products with 127 within 31 bits; longer heads
// get smaller codes.
inline int32_t MaxQueryCode(int64_t head_dim) {
  return static_cast<int32_t>(127 * 256 * 512 /
                              std::max<int64_t>(512, head_dim));
}

// Fifteen bits, so that a weight is a signed word for vpmaddwd, and the sum of
// 256 products with 127 stays below 2^31.
inline constexpr float kMaxWeight = 32767.0f;

// Queries with a maximum below this are zero.
inline constexpr float kMinQueryMagnitude = 0x1p-100f;

// 2^f on [-1/2, 1/2] with p(0) = 1, the minimax of the relative error for
// degree 4: 2.8e-6, a tenth of a weight's rounding.
inline constexpr float kInt8Exp2[] = {6.931241751e-01f, 2.402409911e-01f,
                                      5.590642989e-02f, 9.582854807e-03f};

// Adding it rounds to whole numbers, which are then the low bits.
inline constexpr float kInt8RoundMagic = 12582912.0f;  // 1.5 * 2^23

// Where exponents are cut off. 2^-127 comes out as exactly zero: 1.0f's
// exponent field less 127.
inline constexpr float kInt8MinExponent = -127.0f;

// Adding it leaves a weight in the low 16 bits, rounded to nearest even.
inline constexpr float kInt8WeightMagic = 8388608.0f;  // 2^23

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_ARITHMETIC_H_
