// The scalar reference of the matrix product: slow, obvious, and bit for bit
// what every SIMD variant must give.
//
// With f32 weights, or integers decoded to f32, an output is
//   total = 0
//   for each block of 256 k:  sum = 0
//                             for k in the block: sum = fma(w[k], x[k], sum)
//                             total = total + sum
//   y = total (+ bias) (+ old y)
// With bf16 weights, or integers decoded to bf16, the two k of a pair go in the
// order odd, even. With integers and int8 activations it is
//   total = 0
//   for each group g:  sum = 0
//                      for k in the group: sum += (code[k] - zero) * value[k]
//                      total = fma(float(sum), weight_scale * scale, total)
#ifndef NIBBLE_KERNELS_MATMUL_REFERENCE_H_
#define NIBBLE_KERNELS_MATMUL_REFERENCE_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"

namespace nibble {

// A row for each format of weights and each way to multiply them.
absl::Span<const MatMulKernel> ReferenceMatMulKernels();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_REFERENCE_H_
