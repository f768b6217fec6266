#include "kernels/matmul/matmul.h"

#include "absl/log/check.h"
#include "kernels/matmul/table.h"

namespace nibble {

void MatMul(MatrixView<const float> x, const PackedMatrix& w,
            const MatMulOptions& options, MatrixView<float> y,
            ThreadPool& pool) {
  CHECK_GE(x.rows, 1);
  CHECK_EQ(x.cols, w.inputs());
  CHECK_EQ(y.rows, x.rows);
  CHECK_EQ(y.cols, w.outputs());
  RunKernel(ChooseKernel(w.format(), options.activations), x, w, options, y,
            pool);
}

}  // namespace nibble
