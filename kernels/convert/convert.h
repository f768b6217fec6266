// Reads tensors of any weight format as floats, and narrows floats to 16 bits.
//
//   Array<float> values(weight.shape.elements());   // [outputs, inputs]
//   RETURN_IF_ERROR(ConvertToF32(weight, values.span()));
//
// Widening f16 and bf16 is exact. The block formats are dequantized with the
// float operations of ggml's scalar code, in its order (tensor/block_format.h
// has the formulas), so that the results equal ggml's bit for bit, on every
// CPU. Nothing here allocates or starts threads; calls on separate rows may run
// at the same time.
#ifndef NIBBLE_KERNELS_CONVERT_CONVERT_H_
#define NIBBLE_KERNELS_CONVERT_CONVERT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

// f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k.
bool CanConvertToF32(DType dtype);

// out = tensor, row-major. Unimplemented when !CanConvertToF32(tensor.dtype).
// REQUIRES: out.size() == tensor.shape.elements().
absl::Status ConvertToF32(const TensorView& tensor, absl::Span<float> out);

// out[j] = matrix[row, j]. Unimplemented when !CanConvertToF32(matrix.dtype).
// REQUIRES: matrix has rank 2, 0 <= row < dim(0), out.size() == dim(1).
absl::Status ConvertRowToF32(const TensorView& matrix, int64_t row,
                             absl::Span<float> out);

// False when a value is infinite or NaN, as a broken file's weights or the
// scales of its blocks make them.
bool AllFinite(absl::Span<const float> values);

// Element by element, as ToBF16 and the others of tensor/bf16.h.
// REQUIRES: both spans are of one size and do not overlap.
void F32ToBF16(absl::Span<const float> in, absl::Span<BF16> out);
void F32ToF16(absl::Span<const float> in, absl::Span<F16> out);
void BF16ToF32(absl::Span<const BF16> in, absl::Span<float> out);
void F16ToF32(absl::Span<const F16> in, absl::Span<float> out);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_CONVERT_CONVERT_H_
