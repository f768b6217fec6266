// Rounding one token's key or value of one KV head to int8.
//
//   int8_t codes[kMaxDim];
//   BF16 scale = QuantizeHeadTable()[0].quantize(key, head_dim, codes);
//
// scale = max |x| / 127, rounded up to bf16 so that nothing clips, and
// code[i] = x[i] / scale rounded to nearest even: |x[i] - code[i] * scale| is
// at most half a scale. Below a maximum of 2^-100 everything is zero with scale
// 0. If any x is a NaN or an infinity, the codes are zero and the scale is a
// NaN, so that whoever sees the token gets a NaN. The same bits on every ISA.
#ifndef NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_H_
#define NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "tensor/bf16.h"

namespace nibble {

struct QuantizeHeadKernels {
  const char* name;
  Isa isa;
  // x, codes: [count]
  BF16 (*quantize)(const float* x, int64_t count, int8_t* codes);
};

absl::Span<const QuantizeHeadKernels> QuantizeHeadTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_QUANTIZE_HEAD_H_
