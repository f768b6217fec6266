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

ScaleLoss::ScaleLoss(const RoundedLinear& linear, int64_t max_rows, bool search)
    : linear_(linear),
      rows_(std::min(max_rows, linear.weights.rows)),
      search_(search) {
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
  error_ = Array<float>(size);
  if (linear_.variances.empty()) product_ = Array<float>(size);
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
      float largest = 0;
      for (size_t j = 0; j < inputs; ++j) {
        out[j] = weights[j] * scales[j];
        largest = std::max(largest, std::abs(out[j]));
      }
      if (!(largest <= kMaxRoundedWeight)) in_range = false;
    }
  });
  if (!in_range) return std::numeric_limits<double>::infinity();
  RoundOptions options;
  options.spec = linear_.spec;
  std::vector<float> importance;
  if (search_) {
    for (size_t j = 0; j < inputs; ++j) {
      importance.push_back(
          static_cast<float>(linear_.importance(static_cast<int64_t>(j)) /
                             (double{scales[j]} * scales[j])));
    }
    options.search = true;
    options.importance = importance;
  }
  const QuantizedMatrix rounded = RoundMatrix(scaled, options, pool);
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
  const bool apart = !linear_.variances.empty();
  const MatrixView<float> product(product_.data(), count, linear_.weights.cols);
  if (!apart) {
    GemmNT(error, linear_.gram, {}, product, pool);  // G is symmetric
  }
  pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* a = error.row(i);
      double sum = 0;
      for (size_t j = 0; j < inputs; ++j) {
        sum += double{a[j]} * (apart ? a[j] * linear_.variances[j]
                                     : double{product.row(i)[j]});
      }
      sums_[static_cast<size_t>(i)] = sum;
    }
  });
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += sums_[static_cast<size_t>(i)];
  return sum;
}

}  // namespace nibble
