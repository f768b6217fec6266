// The quantized block formats, byte by byte, as ggml defines them.
//
// A block holds the elements of one row that stand next to each other: 32 of
// them in the simple formats, 256 (a super-block) in the K formats. `y[i]` is
// element i of the block, `q` an unsigned integer read from it. Nibbles pair
// element i with element i + 16 (or i + 32 in the K formats), not with i + 1.
// All numbers are little-endian; f16 is IEEE binary16. Float operations are
// those written, in that order, in single precision.
//
// This file is layout only. kernels/convert does the arithmetic.
#ifndef NIBBLE_TENSOR_BLOCK_FORMAT_H_
#define NIBBLE_TENSOR_BLOCK_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

inline constexpr int kBlockElements = 32;
inline constexpr int kSuperBlockElements = 256;

//  0    2                  18
//  | d  | qs[16]            |     y[i]      = (int(qs[i] & 15) - 8) * d
//                                 y[i + 16] = (int(qs[i] >> 4) - 8) * d
struct BlockQ4_0 {
  F16 d;
  uint8_t qs[16];
};

//  0    2    4              20
//  | d  | m  | qs[16]        |    y[i]      = (qs[i] & 15) * d + m
//                                 y[i + 16] = (qs[i] >> 4) * d + m
struct BlockQ4_1 {
  F16 d;
  F16 m;
  uint8_t qs[16];
};

//  0    2       6              22
//  | d  | qh[4] | qs[16]        |
// qh is a little-endian u32 whose bit i is the fifth bit of element i.
//   y[i]      = (int((qs[i] & 15) | bit(i) << 4) - 16) * d
//   y[i + 16] = (int((qs[i] >> 4) | bit(i + 16) << 4) - 16) * d
struct BlockQ5_0 {
  F16 d;
  uint8_t qh[4];
  uint8_t qs[16];
};

//  0    2    4       8              24
//  | d  | m  | qh[4] | qs[16]        |
//   y[i]      = ((qs[i] & 15) | bit(i) << 4) * d + m
//   y[i + 16] = ((qs[i] >> 4) | bit(i + 16) << 4) * d + m
struct BlockQ5_1 {
  F16 d;
  F16 m;
  uint8_t qh[4];
  uint8_t qs[16];
};

//  0    2                  34
//  | d  | qs[32]            |     y[i] = qs[i] * d
struct BlockQ8_0 {
  F16 d;
  int8_t qs[32];
};

// Q4_K and Q5_K have eight sub-blocks of 32, each with a 6-bit scale and a
// 6-bit minimum, packed into 12 bytes s[0..11]:
//
//   j < 4:   scale(j) = s[j] & 63         min(j) = s[j + 4] & 63
//   j >= 4:  scale(j) = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4
//            min(j)   = (s[j + 4] >> 4) | (s[j] >> 6) << 4
//
//  0    2       4            16               144
//  | d  | dmin  | scales[12] | qs[128]          |
// qs[32 * p + l] holds element l of sub-block 2p (low nibble) and of 2p + 1
// (high nibble).
//   y[32 * j + l] = (d * scale(j)) * q - (dmin * min(j))
struct BlockQ4_K {
  F16 d;
  F16 dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};

//  0    2       4            16      48               176
//  | d  | dmin  | scales[12] | qh[32] | qs[128]         |
// As Q4_K; bit j of qh[l] is the fifth bit of element l of sub-block j.
struct BlockQ5_K {
  F16 d;
  F16 dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};

//  0        128     192         208  210
//  | ql[128] | qh[64] | scales[16] | d  |
// Two halves h of 128 elements; l in 0..31; four quarters k of 32 in a half:
//   low(k)  = k < 2 ? ql[64h + 32k + l] & 15 : ql[64h + 32(k - 2) + l] >> 4
//   high(k) = (qh[32h + l] >> 2k) & 3
//   y[128h + 32k + l] =
//       (d * scales[8h + 2k + l / 16]) * (int(low(k) | high(k) << 4) - 32)
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  F16 d;
};

static_assert(sizeof(BlockQ4_0) == 18 && offsetof(BlockQ4_0, qs) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && offsetof(BlockQ4_1, m) == 2 &&
              offsetof(BlockQ4_1, qs) == 4);
static_assert(sizeof(BlockQ5_0) == 22 && offsetof(BlockQ5_0, qh) == 2 &&
              offsetof(BlockQ5_0, qs) == 6);
static_assert(sizeof(BlockQ5_1) == 24 && offsetof(BlockQ5_1, m) == 2 &&
              offsetof(BlockQ5_1, qh) == 4 && offsetof(BlockQ5_1, qs) == 8);
static_assert(sizeof(BlockQ8_0) == 34 && offsetof(BlockQ8_0, qs) == 2);
static_assert(sizeof(BlockQ4_K) == 144 && offsetof(BlockQ4_K, dmin) == 2 &&
              offsetof(BlockQ4_K, scales) == 4 &&
              offsetof(BlockQ4_K, qs) == 16);
static_assert(sizeof(BlockQ5_K) == 176 && offsetof(BlockQ5_K, dmin) == 2 &&
              offsetof(BlockQ5_K, scales) == 4 &&
              offsetof(BlockQ5_K, qh) == 16 && offsetof(BlockQ5_K, qs) == 48);
static_assert(sizeof(BlockQ6_K) == 210 && offsetof(BlockQ6_K, qh) == 128 &&
              offsetof(BlockQ6_K, scales) == 192 &&
              offsetof(BlockQ6_K, d) == 208);

// clang-format off
template <> struct DTypeOf<BlockQ4_0> : DTypeConstant<DType::kQ4_0> {};
template <> struct DTypeOf<BlockQ4_1> : DTypeConstant<DType::kQ4_1> {};
template <> struct DTypeOf<BlockQ5_0> : DTypeConstant<DType::kQ5_0> {};
template <> struct DTypeOf<BlockQ5_1> : DTypeConstant<DType::kQ5_1> {};
template <> struct DTypeOf<BlockQ8_0> : DTypeConstant<DType::kQ8_0> {};
template <> struct DTypeOf<BlockQ4_K> : DTypeConstant<DType::kQ4_K> {};
template <> struct DTypeOf<BlockQ5_K> : DTypeConstant<DType::kQ5_K> {};
template <> struct DTypeOf<BlockQ6_K> : DTypeConstant<DType::kQ6_K> {};
// clang-format on

}  // namespace nibble

#endif  // NIBBLE_TENSOR_BLOCK_FORMAT_H_
