// The rows of the table of matrix products that run on AMX tiles, real and
// emulated.
#ifndef NIBBLE_KERNELS_MATMUL_AMX_KERNELS_H_
#define NIBBLE_KERNELS_MATMUL_AMX_KERNELS_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"

namespace nibble {

// Variants compiled into this build, whatever the processor; real tiles after
// emulated ones.
absl::Span<const MatMulKernel> AmxMatMulKernels();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_AMX_KERNELS_H_
