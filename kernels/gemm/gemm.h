// Products of two float matrices, any of them transposed: what training needs
// beside MatMul (kernels/matmul), whose weights are packed beforehand.
//
//   GemmOptions bf16{.precision = GemmPrecision::kBF16};
//   GemmNT(x, w, {}, y, pool);      // y  [m, n]  = x [m, k] w [n, k]^T
//   GemmNN(dy, w, bf16, dx, pool);  // dx [m, n]  = dy [m, k] w [k, n]
//   GemmTN(dy, x, bf16, dw, pool);  // dw [m, n]  = dy [k, m]^T x [k, n]
//   Syrk(x, h, pool);               // h  [n, n] += x [k, n]^T x
//
// The bits of a result do not depend on the number of threads. Sums are f32,
// in blocks of 256 of k as MatMul has them.
#ifndef NIBBLE_KERNELS_GEMM_GEMM_H_
#define NIBBLE_KERNELS_GEMM_GEMM_H_

#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// kBF16: both factors are rounded to bf16 first, products and sums stay f32; up
// to twice as fast where the processor has AVX512_BF16 or AMX.
enum class GemmPrecision { kF32, kBF16 };

struct GemmOptions {
  GemmPrecision precision = GemmPrecision::kF32;
  bool accumulate = false;  // c += product
};

// c = a b^T. a: [m, k], b: [n, k], c: [m, n], each with any stride.
// REQUIRES, here and below: sizes agree and are positive; c overlaps no input.
void GemmNT(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// c = a b. a: [m, k], b: [k, n], c: [m, n].
void GemmNN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// c = a^T b. a: [k, m], b: [k, n], c: [m, n].
void GemmTN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool);

// h += x^T x, both triangles. x: [k, n], h: [n, n]. Computes half of it and
// mirrors. Sums within a call are f32; sum up calls of some thousand rows in
// doubles where more are wanted.
void Syrk(MatrixView<const float> x, const GemmOptions& options,
          MatrixView<float> h, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_GEMM_H_
