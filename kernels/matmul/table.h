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
#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

// All variants in this build. Of those that fit a product, a later one is
// better.
absl::Span<const MatMulKernel> MatMulKernels();

// True if the processor can run it and the active ISA permits it.
bool KernelAllowed(const MatMulKernel& kernel);

// The best allowed variant for weights of this dtype and these activations.
const MatMulKernel& ChooseKernel(WeightFormat weights, Activations activations);

// MatMul with a given variant. REQUIRES: it is allowed and made for w.format();
// a kBF16 panel only with Activations::kBF16.
void RunKernel(const MatMulKernel& kernel, MatrixView<const float> x,
               const PackedMatrix& w, const MatMulOptions& options,
               MatrixView<float> y, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_TABLE_H_
