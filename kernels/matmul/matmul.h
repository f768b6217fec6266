// Products of activations with a weight matrix: y = x * W^T + bias.
//
//   absl::StatusOr<PackedMatrix> w =
//       PackMatrix(view, WeightFormat::kBF16, pool);
//   if (!w.ok()) return w.status();
//   MatMulOptions options;
//   options.bias = bias.data();
//   MatMul(x, *w, options, y, pool);           // y: [rows, w->outputs()]
//
// Every output is summed in f32 in one fixed order: blocks of 256 consecutive k
// are summed one fused multiply-add after another, and their sums are added up.
// So its bits do not depend on the number of rows, the position of the row
// among them, the number of threads or the ISA. The error is at most
// gamma(256 + K / 256) * sum_k |x[k] w[k]|, where gamma(n) = n u / (1 - n u)
// and u = 2^-24.
//
// With Activations::kInt8 and integer weights, sums within a group of inputs
// are exact in int32 and are added up group by group in f32 (reference.h), then
// the part of minimums (minimums.h), then what outliers exceed the int8 range
// by (outliers.h): the same bits everywhere again.
//
// With Activations::kBF16 the ISA matters: AVX512_BF16 takes subnormal values
// for zero, and AMX sums in an order of its own, tiles of 32 k one after
// another, with an error of at most gamma(18 + K / 32) in the same formula.
#ifndef NIBBLE_KERNELS_MATMUL_MATMUL_H_
#define NIBBLE_KERNELS_MATMUL_MATMUL_H_

#include "kernels/matmul/matmul_options.h"  // IWYU pragma: export
#include "kernels/matmul/packed_matrix.h"   // IWYU pragma: export
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// y[m, n] = sum_k x[m, k] * w[n, k] + bias[n], plus the old y[m, n] if
// `accumulate`; or act(gate) * up if `gated`, with y: [rows, outputs / 2].
// Infinities and NaNs propagate as IEEE 754 says; with Activations::kInt8 both
// make the row's outputs NaN.
// x: [rows, inputs], y: [rows, outputs], both with any stride. Scratch memory
// comes from the pool.
// REQUIRES: rows >= 1; x and y do not overlap.
void MatMul(MatrixView<const float> x, const PackedMatrix& w,
            const MatMulOptions& options, MatrixView<float> y,
            ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_MATMUL_H_
