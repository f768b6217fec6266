#include "quantization/teq/scaled_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/tuning/fake_quant.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Rows whose slopes are summed in floats, by one thread. Few enough for the
// sums' roundings (2^-24 each), many enough for the partial sums to be small
// beside the matrix.
constexpr int64_t kRowsOfPart = 64;

// From -1/2 to 1/2, the same for the same index (SplitMix64's finalizer).
float SpreadEvenly(uint64_t index) {
  uint64_t bits = (index + 1) * 0x9e3779b97f4a7c15u;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  return static_cast<float>(bits >> 40) * 0x1p-24f - 0.5f;
}

}  // namespace

ScaledMatrix::ScaledMatrix(MatrixView<const float> weights,
                           const GridSpec& spec,
                           absl::Span<const float> residuals)
    : weights_(weights),
      spec_(spec),
      residuals_(residuals),
      values_(static_cast<size_t>(weights.rows * weights.cols)) {}

void ScaledMatrix::Round(absl::Span<const float> scales, ThreadPool& pool) {
  const int64_t inputs = weights_.cols;
  DCHECK_EQ(static_cast<int64_t>(scales.size()), inputs);
  scales_.assign(scales.begin(), scales.end());
  const int64_t size = spec_.group_inputs(inputs);
  const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
  pool.ParallelFor(weights_.rows, [&](int64_t begin, int64_t end, int) {
    std::vector<float> scaled(static_cast<size_t>(inputs));
    for (int64_t row = begin; row < end; ++row) {
      const float* w = weights_.row(row);
      for (int64_t j = 0; j < inputs; ++j) scaled[j] = w[j] * scales[j];
      float* values = values_.data() + row * inputs;
      for (int64_t first = 0; first < inputs; first += size) {
        const int64_t count = std::min(size, inputs - first);
        const GroupGrid grid =
            FitGroup(absl::MakeConstSpan(scaled).subspan(first, count), spec_);
        if (residuals_.empty()) {
          kernels.decode(scaled.data() + first, nullptr, count,
                         FakeQuantGridOf(grid, spec_), values + first);
        } else {
          AddErrors(grid, absl::MakeConstSpan(scaled).subspan(first, count),
                    row * inputs + first, values + first);
        }
      }
      for (int64_t j = 0; j < inputs; ++j) values[j] /= scales[j];
    }
  });
}

void ScaledMatrix::AddErrors(const GroupGrid& grid,
                             absl::Span<const float> scaled, int64_t index,
                             float* values) const {
  const size_t first = static_cast<size_t>(index % weights_.cols);
  // A scale takes the sign of the group's largest weight, which another may
  // become without a jump.
  const float step = std::abs(grid.scale);
  for (size_t j = 0; j < scaled.size(); ++j) {
    values[j] = scaled[j] + SpreadEvenly(static_cast<uint64_t>(index) + j) *
                                step * residuals_[first + j];
  }
}

// The group's step follows its extremes: where error, sum_j G_j (value_j -
// w_j), is what the loss loses with log(step), each end of the range gets its
// share.
void ScaledMatrix::AddStepSlopes(const float* w, int64_t first, int64_t count,
                                 float error, float* slopes) const {
  int64_t low = 0, high = 0;
  float min = 0.0f, max = 0.0f;
  // A range with a minimum need not hold 0.
  if (spec_.offset == CodeOffset::kMinimums) {
    min = max = w[0] * scales_[static_cast<size_t>(first)];
  }
  for (int64_t j = 0; j < count; ++j) {
    const float scaled = w[j] * scales_[static_cast<size_t>(first + j)];
    if (scaled < min) min = scaled, low = j;
    if (scaled > max) max = scaled, high = j;
  }
  switch (spec_.offset) {
    case CodeOffset::kSymmetric:
      slopes[max >= -min ? high : low] += error;
      break;
    case CodeOffset::kZeros:
    case CodeOffset::kMinimums:
      if (max == min) break;
      slopes[high] += error * (max / (max - min));
      slopes[low] += error * (-min / (max - min));
      break;
  }
}

void ScaledMatrix::AddSlopes(MatrixView<const float> gradient,
                             absl::Span<double> slopes,
                             ThreadPool& pool) const {
  const int64_t rows = weights_.rows, inputs = weights_.cols;
  DCHECK_EQ(static_cast<int64_t>(slopes.size()), inputs);
  const int64_t size = spec_.group_inputs(inputs);
  const int64_t parts = (rows + kRowsOfPart - 1) / kRowsOfPart;
  Array<float> sums(static_cast<size_t>(parts * inputs),
                    AlignedBuffer::Fill::kZero);  // [parts, inputs]
  pool.ParallelFor(parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t last = std::min(rows, (part + 1) * kRowsOfPart);
      for (int64_t row = part * kRowsOfPart; row < last; ++row) {
        for (int64_t first = 0; first < inputs; first += size) {
          const float* g = gradient.row(row) + first;
          const float* w = weights_.row(row) + first;
          const float* value = values_.data() + row * inputs + first;
          float* sum = sums.data() + part * inputs + first;
          const int64_t count = std::min(size, inputs - first);
          float error = 0;
          for (int64_t j = 0; j < count; ++j) {
            const float change = g[j] * (w[j] - value[j]);
            sum[j] += change;
            error -= change;
          }
          AddStepSlopes(w, first, count, error, sum);
        }
      }
    }
  });
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t j = 0; j < inputs; ++j) {
      slopes[j] += sums[static_cast<size_t>(part * inputs + j)];
    }
  }
}

}  // namespace nibble
