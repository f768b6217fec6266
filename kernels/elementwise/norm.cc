#include "kernels/elementwise/norm.h"

#include "absl/log/check.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/norm_kernels.h"
#include "kernels/elementwise/row_parallel.h"

namespace nibble {
namespace {

int64_t SizeOf(absl::Span<const float> x) {
  return static_cast<int64_t>(x.size());
}

}  // namespace

void RmsNorm(absl::Span<const float> x, absl::Span<const float> weight,
             float eps, absl::Span<float> out) {
  DCHECK(x.size() == weight.size() && x.size() == out.size() && !x.empty());
  SelectKernels(NormTable())
      .rms_norm(x.data(), weight.data(), SizeOf(x), eps, out.data());
}

void LayerNorm(absl::Span<const float> x, absl::Span<const float> weight,
               absl::Span<const float> bias, float eps, absl::Span<float> out) {
  DCHECK(x.size() == weight.size() && x.size() == out.size() && !x.empty());
  DCHECK(bias.empty() || bias.size() == x.size());
  SelectKernels(NormTable())
      .layer_norm(x.data(), weight.data(), bias.empty() ? nullptr : bias.data(),
                  SizeOf(x), eps, out.data());
}

void RmsNormRows(MatrixView<const float> x, absl::Span<const float> weight,
                 float eps, MatrixView<float> out, ThreadPool& pool) {
  CHECK(x.rows == out.rows && x.cols == out.cols && x.cols >= 1);
  CHECK_EQ(x.cols, SizeOf(weight));
  const NormKernels& kernels = SelectKernels(NormTable());
  ForEachRow(x.rows, x.cols, pool, [&](int64_t row) {
    kernels.rms_norm(x.row(row), weight.data(), x.cols, eps, out.row(row));
  });
}

void LayerNormRows(MatrixView<const float> x, absl::Span<const float> weight,
                   absl::Span<const float> bias, float eps,
                   MatrixView<float> out, ThreadPool& pool) {
  CHECK(x.rows == out.rows && x.cols == out.cols && x.cols >= 1);
  CHECK_EQ(x.cols, SizeOf(weight));
  CHECK(bias.empty() || SizeOf(bias) == x.cols);
  const NormKernels& kernels = SelectKernels(NormTable());
  const float* bias_data = bias.empty() ? nullptr : bias.data();
  ForEachRow(x.rows, x.cols, pool, [&](int64_t row) {
    kernels.layer_norm(x.row(row), weight.data(), bias_data, x.cols, eps,
                       out.row(row));
  });
}

}  // namespace nibble
