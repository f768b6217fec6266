#include "quantization/signround/tuned_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/tuning/fake_quant.h"
#include "quantization/tuning/tuned_range.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// 0 has no sign, and NaN none either.
float Signed(double slope, float step) {
  return slope > 0 ? step : slope < 0 ? -step : 0.0f;
}

// gradient = mean = momentum * mean + (1 - momentum) * gradient, the mean
// rounded to bf16, which a sign does not notice.
void Smooth(float momentum, int64_t count, BF16* mean, float* gradient) {
  constexpr int64_t kPiece = 256;  // on the stack, in L1
  float past[kPiece];
  for (int64_t first = 0; first < count; first += kPiece) {
    const size_t size = static_cast<size_t>(std::min(kPiece, count - first));
    BF16* m = mean + first;
    float* g = gradient + first;
    BF16ToF32(absl::MakeConstSpan(m, size), absl::MakeSpan(past, size));
    for (size_t j = 0; j < size; ++j) {
      g[j] = momentum * past[j] + (1.0f - momentum) * g[j];
    }
    F32ToBF16(absl::MakeConstSpan(g, size), absl::MakeSpan(m, size));
  }
}

// A range that another method has fitted may have been narrowed too much.
constexpr float kMaxGrowth = 1.25f;

// How far behind the boundary to a code a shift puts a weight, in steps. Near
// enough for training to take the code back, far enough for roundings.
constexpr float kInside = 0.1f;

// What moves a weight at `position` steps (without zero point) to `code`.
int16_t ShiftTo(float code, float position, const FakeQuantGrid& grid) {
  const float nearest = std::clamp(std::nearbyint(position) + grid.zero,
                                   grid.min_code, grid.max_code);
  if (nearest == code) return 0;
  const float centre = code - grid.zero, reach = 0.5f - kInside;
  const float shift =
      std::clamp(position, centre - reach, centre + reach) - position;
  constexpr float kEnd = 2.0f * kShiftOne - 1.0f;
  return static_cast<int16_t>(
      std::lround(std::clamp(shift * kShiftOne, -kEnd, kEnd)));
}

}  // namespace

void TunedMatrix::StartFrom(const QuantizedMatrix& start, ThreadPool& pool) {
  CHECK(start.input_order.empty());
  CHECK(start.outputs == weights_.rows && start.inputs == weights_.cols);
  max_ratio_ = kMaxGrowth;
  const int64_t groups = spec_.groups(weights_.cols);
  ForEachGroup(pool, [&](int64_t row, int64_t group, int64_t first,
                         int64_t count) {
    TunedRange& range = ranges_[static_cast<size_t>(row * groups + group)];
    range = RangeOf(start.grid(row, group), spec_);
    const FakeQuantGrid grid = FakeQuantGridOf(GridOf(range, spec_), spec_);
    if (grid.scale == 0.0f) return;
    const float* w = weights_.row(row) + first;
    const uint8_t* codes = start.row_codes(row).data() + first;
    int16_t* shift = shifts_.data() + row * weights_.cols + first;
    for (int64_t j = 0; j < count; ++j) {
      shift[j] = ShiftTo(codes[j], (w[j] - grid.minimum) / grid.scale, grid);
    }
  });
}

TunedMatrix::TunedMatrix(MatrixView<const float> weights, const GridSpec& spec,
                         ThreadPool& pool)
    : weights_(weights),
      spec_(spec),
      shifts_(static_cast<size_t>(weights.rows * weights.cols),
              AlignedBuffer::Fill::kZero),
      ranges_(static_cast<size_t>(weights.rows * spec.groups(weights.cols))) {
  const int64_t groups = spec.groups(weights.cols);
  ForEachGroup(
      pool, [&](int64_t row, int64_t group, int64_t first, int64_t count) {
        ranges_[static_cast<size_t>(row * groups + group)] =
            RangeOf(weights_.row_span(row).subspan(first, count), spec_);
      });
}

void TunedMatrix::ForEachGroup(
    ThreadPool& pool,
    absl::FunctionRef<void(int64_t, int64_t, int64_t, int64_t)> body) const {
  const int64_t size = spec_.group_inputs(weights_.cols);
  const int64_t groups = spec_.groups(weights_.cols);
  pool.ParallelFor(weights_.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = group * size;
        body(row, group, first, std::min(size, weights_.cols - first));
      }
    }
  });
}

void TunedMatrix::Decode(MatrixView<float> values, ThreadPool& pool) const {
  const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
  ForEachGroup(
      pool, [&](int64_t row, int64_t group, int64_t first, int64_t count) {
        kernels.decode(weights_.row(row) + first, shifts(row, first), count,
                       FakeQuantGridOf(GridOf(range(row, group), spec_), spec_),
                       values.row(row) + first);
      });
}

void TunedMatrix::Encode(QuantizedMatrix& result, ThreadPool& pool) const {
  DCHECK(result.outputs == weights_.rows && result.inputs == weights_.cols);
  const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
  ForEachGroup(pool,
               [&](int64_t row, int64_t group, int64_t first, int64_t count) {
                 const GroupGrid grid = GridOf(range(row, group), spec_);
                 result.set_grid(row, group, grid);
                 kernels.encode(weights_.row(row) + first, shifts(row, first),
                                count, FakeQuantGridOf(grid, spec_),
                                result.row_codes(row).data() + first);
               });
}

void TunedMatrix::Descend(const Step& step, MatrixView<float> values,
                          ThreadPool& pool) {
  const FakeQuantKernels& kernels = ActiveFakeQuantKernels();
  const int64_t groups = spec_.groups(weights_.cols);
  if (step.momentum != 0.0f && momentum_.empty()) {
    momentum_ = Array<BF16>(shifts_.size(), AlignedBuffer::Fill::kZero);
  }
  ForEachGroup(pool, [&](int64_t row, int64_t group, int64_t first,
                         int64_t count) {
    const float* w = weights_.row(row) + first;
    float* value = values.row(row) + first;
    if (step.momentum != 0.0f) {
      Smooth(step.momentum, count,
             momentum_.data() + row * weights_.cols + first, value);
    }
    int16_t* shift = shifts_.data() + row * weights_.cols + first;
    TunedRange& range = ranges_[static_cast<size_t>(row * groups + group)];
    const GroupGrid grid = GridOf(range, spec_);
    const FakeQuantSums sums = kernels.descend(
        w, value, count, FakeQuantGridOf(grid, spec_), step.shift, shift);
    const RangeSlopes slopes = SlopesOf(sums, range, grid, spec_);
    range.low_ratio = std::clamp(
        range.low_ratio - Signed(slopes.low, step.range), 0.0f, max_ratio_);
    range.high_ratio = std::clamp(
        range.high_ratio - Signed(slopes.high, step.range), 0.0f, max_ratio_);
    kernels.decode(w, shift, count,
                   FakeQuantGridOf(GridOf(range, spec_), spec_), value);
  });
}

}  // namespace nibble
