// A float matrix packed for products with many rows of activations, its
// transpose too where gradients are wanted.
//
//   PackedLinear linear;
//   linear.Set(w, GemmPrecision::kBF16, /*transpose=*/true, pool);
//   MatMul(x, linear.matrix(), options, y, pool);          // y = x w^T
//   MatMul(dy, linear.transpose(), options, dx, pool);     // dx = dy w
#ifndef NIBBLE_QUANTIZATION_BLOCK_PACKED_LINEAR_H_
#define NIBBLE_QUANTIZATION_BLOCK_PACKED_LINEAR_H_

#include "kernels/gemm/gemm.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class PackedLinear {
 public:
  // w: [outputs, inputs], any stride.
  void Set(MatrixView<const float> w, GemmPrecision precision, bool transpose,
           ThreadPool& pool);

  const PackedMatrix& matrix() const { return matrix_; }
  // [inputs, outputs]; dx = dy w is a product with it.
  const PackedMatrix& transpose() const { return transpose_; }

 private:
  PackedMatrix matrix_;
  PackedMatrix transpose_;
};

// dst [cols, rows] = src^T, in tiles on the pool's threads.
void Transpose(MatrixView<const float> src, MatrixView<float> dst,
               ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_PACKED_LINEAR_H_
