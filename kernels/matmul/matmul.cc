#include "kernels/matmul/matmul.h"

#include "absl/log/check.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"

namespace nibble {

void MatMul(MatrixView<const float> x, const PackedMatrix& w,
            const MatMulOptions& options, MatrixView<float> y,
            ThreadPool& pool) {
  CHECK_GE(x.rows, 1);
  CHECK_EQ(x.cols, w.inputs());
  CHECK_EQ(y.rows, x.rows);
  if (options.gated) {
    CHECK(!options.accumulate);
    CHECK_EQ(2 * y.cols, w.outputs());
  } else {
    CHECK_EQ(y.cols, w.outputs());
  }
  RunKernel(ChooseKernel(w.format(), options.activations, x.rows), x, w,
            options, y, pool);
}

}  // namespace nibble
