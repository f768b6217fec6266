// One matrix product with a given variant: packs the activations, shares the
// records among threads, and finishes what the kernel sums.
#ifndef NIBBLE_KERNELS_MATMUL_RUN_KERNEL_H_
#define NIBBLE_KERNELS_MATMUL_RUN_KERNEL_H_

#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul_options.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// MatMul with a given variant. REQUIRES: the processor has its ISA, and it is
// made for w.format() and options.activations (see ChooseKernel).
void RunKernel(const MatMulKernel& kernel, MatrixView<const float> x,
               const PackedMatrix& w, const MatMulOptions& options,
               MatrixView<float> y, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_RUN_KERNEL_H_
