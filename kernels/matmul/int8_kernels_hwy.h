// The SIMD rows of the table for integer weights with int8 activations.
#ifndef NIBBLE_KERNELS_MATMUL_INT8_KERNELS_HWY_H_
#define NIBBLE_KERNELS_MATMUL_INT8_KERNELS_HWY_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"

namespace nibble {

// Variants compiled into this build, whatever the processor; better ones later.
absl::Span<const MatMulKernel> Int8MatMulKernels();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_INT8_KERNELS_HWY_H_
