#include "quantization/awq/scale_loss.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/round_to_nearest.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Rows of one product. 256 or more amortise the packing of G; three buffers of
// 1024 rows of 11008 inputs are 135 MB.
constexpr int64_t kChunkRows = 1024;

}  // namespace

ScaleLoss::ScaleLoss(const RoundedLinear& linear, int64_t max_rows)
    : linear_(linear), rows_(std::min(max_rows, linear.weights.rows)) {
  CHECK_GT(rows_, 0);
  if (linear_.variances.empty()) {
    CHECK_EQ(linear_.gram.rows, linear_.weights.cols);
  } else {
    CHECK_EQ(static_cast<int64_t>(linear_.variances.size()),
             linear_.weights.cols);
  }
  const size_t chunk = static_cast<size_t>(std::min(rows_, kChunkRows));
  const size_t size = chunk * static_cast<size_t>(linear_.weights.cols);
  scaled_ = Array<float>(size);
  if (linear_.variances.empty()) {
    error_ = Array<float>(size);
    product_ = Array<float>(size);
  }
  sums_ = Array<double>(chunk);
}

double ScaleLoss::Of(absl::Span<const float> scales, ThreadPool& pool) {
  CHECK_EQ(static_cast<int64_t>(scales.size()), linear_.weights.cols);
  double sum = 0;
  for (int64_t first = 0; first < rows_; first += kChunkRows) {
    sum += OfRows(first, std::min(kChunkRows, rows_ - first), scales, pool);
  }
  sum *= static_cast<double>(linear_.weights.rows) / static_cast<double>(rows_);
  return std::isnan(sum) ? std::numeric_limits<double>::infinity() : sum;
}

double ScaleLoss::OfRows(int64_t first, int64_t count,
                         absl::Span<const float> scales, ThreadPool& pool) {
  const size_t inputs = scales.size();
  const MatrixView<float> scaled(scaled_.data(), count, linear_.weights.cols);
  std::atomic<bool> in_range{true};
  pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* weights = linear_.weights.row(row_of(first + i));
      float* out = scaled.row(i);
      bool fits = true;
      for (size_t j = 0; j < inputs; ++j) {
        out[j] = weights[j] * scales[j];
        fits &= std::abs(out[j]) <= kMaxRoundedWeight;  // false for NaN
      }
      if (!fits) in_range = false;
    }
  });
  if (!in_range) return std::numeric_limits<double>::infinity();
  RoundOptions options;
  options.spec = linear_.spec;
  const QuantizedMatrix rounded = RoundMatrix(scaled, options, pool);
  if (linear_.variances.empty()) {
    return OfErrors(first, rounded, scales, pool);
  }
  return OfSteps(rounded, scales, pool);
}

double ScaleLoss::OfErrors(int64_t first, const QuantizedMatrix& rounded,
                           absl::Span<const float> scales, ThreadPool& pool) {
  const int64_t count = rounded.outputs;
  const size_t inputs = scales.size();
  const MatrixView<float> error(error_.data(), count, linear_.weights.cols);
  pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* weights = linear_.weights.row(row_of(first + i));
      rounded.DequantizeRow(i, error.row_span(i));
      float* out = error.row(i);
      for (size_t j = 0; j < inputs; ++j) {
        out[j] = out[j] / scales[j] - weights[j];
      }
    }
  });
  const MatrixView<float> product(product_.data(), count, linear_.weights.cols);
  GemmNT(error, linear_.gram, {}, product, pool);  // G is symmetric
  pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* a = error.row(i);
      const float* b = product.row(i);
      double sum = 0;
      for (size_t j = 0; j < inputs; ++j) sum += double{a[j]} * b[j];
      sums_[static_cast<size_t>(i)] = sum;
    }
  });
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += sums_[static_cast<size_t>(i)];
  return sum;
}

double ScaleLoss::OfSteps(const QuantizedMatrix& rounded,
                          absl::Span<const float> scales, ThreadPool& pool) {
  const int64_t size = linear_.spec.group_inputs(linear_.weights.cols);
  const int64_t groups = linear_.spec.groups(linear_.weights.cols);
  std::vector<double> costs(static_cast<size_t>(groups));  // of a squared step
  for (size_t j = 0; j < scales.size(); ++j) {
    costs[j / static_cast<size_t>(size)] +=
        linear_.variances[j] / (12 * double{scales[j]} * scales[j]);
  }
  pool.ParallelFor(rounded.outputs, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const double step = rounded.grid(i, g).scale;
        sum += step * step * costs[static_cast<size_t>(g)];
      }
      sums_[static_cast<size_t>(i)] = sum;
    }
  });
  double sum = 0;
  for (int64_t i = 0; i < rounded.outputs; ++i) {
    sum += sums_[static_cast<size_t>(i)];
  }
  return sum;
}

}  // namespace nibble
