// The table of matrix product variants, which dispatcher, test and benchmark
// walk.
//
//   for (const MatMulKernel& kernel : MatMulKernels()) {
//     if (!KernelAllowed(kernel)) continue;      // this CPU cannot, or --isa
//     RunKernel(kernel, x, w, options, y, pool);
//   }
#ifndef NIBBLE_KERNELS_MATMUL_TABLE_H_
#define NIBBLE_KERNELS_MATMUL_TABLE_H_

#include "absl/types/span.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul_options.h"
#include "tensor/packed_layout.h"

namespace nibble {

// All variants in this build. Of those that fit a product, a later one is
// better.
absl::Span<const MatMulKernel> MatMulKernels();

// True if the processor can run it and the active ISA permits it.
bool KernelAllowed(const MatMulKernel& kernel);

// True if it computes products of such weights with such activations.
bool KernelFits(const MatMulKernel& kernel, WeightFormat weights,
                Activations activations);

// The best allowed variant for such weights and so many rows of
// such activations.
const MatMulKernel& ChooseKernel(WeightFormat weights, Activations activations,
                                 int64_t rows);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_TABLE_H_
