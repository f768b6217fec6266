// Rows of weights as GGUF stores them.
//
//   std::vector<std::byte> bytes(GgufRowBytes(DType::kQ4_0, row.size()));
//   absl::StatusOr<RoundingLoss> loss =
//       EncodeGgufRow(DType::kQ4_0, row, absl::MakeSpan(bytes));
//
// Blocks of 32 weights with f16 scales (tensor/block_format.h):
//
//   Q4_0  scale = -extreme / 8: the codes of round_to_nearest.h with 4 bits,
//         symmetric
//   Q4_1  minimum m = the smallest weight, rounded to f16; scale
//         = (largest - m) / 15; code = round((w - m) / scale). Unlike a zero
//         point, m need not be a multiple of the scale, and a block whose
//         weights all lie on one side of zero wastes no codes
//   Q8_0  scale = largest magnitude / 127: the codes with 8 bits
#ifndef NIBBLE_QUANTIZATION_EXPORT_GGUF_BLOCKS_H_
#define NIBBLE_QUANTIZATION_EXPORT_GGUF_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quantization/round_to_nearest.h"
#include "tensor/dtype.h"

namespace nibble {

// Of a row of `inputs` weights. REQUIRES: whole blocks.
int64_t GgufRowBytes(DType dtype, int64_t inputs);

// Writes a row as f32, f16, bf16, q4_0, q4_1 or q8_0. The loss of floats is
// zero. InvalidArgument: a weight is NaN or infinite, or too large for f16, for
// f16 scales or for bf16. Scales below f16's smallest number become zero, and
// with them the weights, which are below 2^-20 then.
// REQUIRES: out.size() == GgufRowBytes(dtype, row.size()).
absl::StatusOr<RoundingLoss> EncodeGgufRow(DType dtype,
                                           absl::Span<const float> row,
                                           absl::Span<std::byte> out);

// A row of codes, one a byte, as q4_0, q4_1 or q8_0; of q8_0 they are 128 more
// than what is stored. Scales and minimums ([blocks]; only q4_1 reads the
// latter) must be f16 numbers.
void EncodeGgufCodes(DType dtype, absl::Span<const uint8_t> codes,
                     absl::Span<const float> scales,
                     absl::Span<const float> minimums,
                     absl::Span<std::byte> out);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_EXPORT_GGUF_BLOCKS_H_
