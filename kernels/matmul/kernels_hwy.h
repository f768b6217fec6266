// The SIMD rows of the table of matrix products.
#ifndef NIBBLE_KERNELS_MATMUL_KERNELS_HWY_H_
#define NIBBLE_KERNELS_MATMUL_KERNELS_HWY_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"

namespace nibble {

// Variants compiled into this build, whatever the processor; better ones later.
absl::Span<const MatMulKernel> HighwayMatMulKernels();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_KERNELS_HWY_H_
