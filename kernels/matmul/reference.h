// The scalar reference of the matrix product: slow, obvious, and bit for bit
// what every SIMD variant must give.
//
// With f32 weights, an output is
//   total = 0
//   for each block of 256 k:  sum = 0
//                             for k in the block: sum = fma(w[k], x[k], sum)
//                             total = total + sum
//   y = total (+ bias) (+ old y)
// With bf16 weights the two k of a pair go in the order odd, even.
#ifndef NIBBLE_KERNELS_MATMUL_REFERENCE_H_
#define NIBBLE_KERNELS_MATMUL_REFERENCE_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"

namespace nibble {

// One row for f32 and one for bf16 weights.
absl::Span<const MatMulKernel> ReferenceMatMulKernels();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_REFERENCE_H_
