#include "quantization/gptq/residual_moment.h"

#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

ResidualMoment::ResidualMoment(int64_t outputs, int64_t inputs)
    : outputs_(outputs),
      inputs_(inputs),
      sums_(static_cast<size_t>(outputs * inputs), AlignedBuffer::Fill::kZero) {
}

void ResidualMoment::Add(MatrixView<const float> wanted,
                         MatrixView<const float> got, MatrixView<const float> x,
                         ThreadPool& pool) {
  DCHECK(wanted.rows == x.rows && got.rows == x.rows);
  DCHECK(wanted.cols == outputs_ && got.cols == outputs_);
  DCHECK_EQ(x.cols, inputs_);
  const size_t size = static_cast<size_t>(x.rows * outputs_);
  if (difference_.size() < size) difference_ = Array<float>(size);
  const MatrixView<float> difference(difference_.data(), x.rows, outputs_);
  pool.ParallelFor(x.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < outputs_; ++i) {
        difference.row(t)[i] = wanted.row(t)[i] - got.row(t)[i];
      }
    }
  });
  GemmTN(difference, x, {GemmPrecision::kF32, /*accumulate=*/true},
         MatrixView<float>(sums_.data(), outputs_, inputs_), pool);
  tokens_ += x.rows;
}

void ResidualMoment::Finish(ThreadPool& pool) {
  if (tokens_ == 0) return;
  const double share = 1.0 / static_cast<double>(tokens_);
  pool.ParallelFor(static_cast<int64_t>(sums_.size()),
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t i = begin; i < end; ++i) {
                       sums_[i] = static_cast<float>(sums_[i] * share);
                     }
                   });
}

}  // namespace nibble
