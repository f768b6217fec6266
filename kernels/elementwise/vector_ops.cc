#include "kernels/elementwise/vector_ops.h"

#include <cstdint>

#include "absl/log/check.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/elementwise/row_parallel.h"
#include "kernels/elementwise/vector_kernels.h"

namespace nibble {
namespace {

int64_t SizeOf(absl::Span<float> x) { return static_cast<int64_t>(x.size()); }

}  // namespace

void AddInPlace(absl::Span<const float> y, absl::Span<float> x) {
  DCHECK_EQ(x.size(), y.size());
  SelectKernels(VectorTable()).add(y.data(), SizeOf(x), x.data());
}

void MultiplyInPlace(absl::Span<const float> y, absl::Span<float> x) {
  DCHECK_EQ(x.size(), y.size());
  SelectKernels(VectorTable()).multiply(y.data(), SizeOf(x), x.data());
}

void ScaleInPlace(float factor, absl::Span<float> x) {
  SelectKernels(VectorTable()).scale(factor, SizeOf(x), x.data());
}

void AddScaledInPlace(float factor, absl::Span<const float> y,
                      absl::Span<float> x) {
  DCHECK_EQ(x.size(), y.size());
  SelectKernels(VectorTable())
      .add_scaled(factor, y.data(), SizeOf(x), x.data());
}

void AddRowsInPlace(MatrixView<const float> y, MatrixView<float> x,
                    ThreadPool& pool) {
  CHECK(x.rows == y.rows && x.cols == y.cols);
  const auto add = SelectKernels(VectorTable()).add;
  ForEachRow(x.rows, x.cols, pool,
             [&](int64_t row) { add(y.row(row), x.cols, x.row(row)); });
}

}  // namespace nibble
