#include "quantization/gptq/damped_factor.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/linalg/cholesky.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr double kDampingStep = 0.01;
constexpr double kMostDamping = 1.0;
constexpr double kLeastFloor = 1e-6;

// Rows of U that are f32 at a time: deep enough for the products' speed.
constexpr int64_t kShiftRows = 256;

// The damped H on and above the diagonal, in order.
void Fill(const Gram& gram, const MomentDiagonal& diagonal,
          absl::Span<const int32_t> order, double damping, double floor,
          MatrixView<double> h, ThreadPool& pool) {
  const MatrixView<const float> mean = gram.mean();
  pool.ParallelForStealing(
      h.rows, /*grain=*/16, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const float* from = mean.row(order[i]);
          double* to = h.row(i);
          for (int64_t j = i; j < h.cols; ++j) to[j] = from[order[j]];
          to[i] = std::max(diagonal.values[order[i]], floor * diagonal.most) +
                  damping * diagonal.mean;
        }
      });
}

// The damping that worked, or none.
std::optional<double> Factor(const Gram& gram, absl::Span<const int32_t> order,
                             double damping, MatrixView<double> h,
                             ThreadPool& pool) {
  const MomentDiagonal diagonal = DiagonalOf(gram);
  const auto works = [&](double add, double floor) {
    Fill(gram, diagonal, order, add, floor, h, pool);
    if (!UpperInverseFactor(h, pool)) return false;
    for (int64_t i = 0; i < h.rows; ++i) {
      // Finite as the f32 that the loops divide by.
      const float pivot = static_cast<float>(h.row(i)[i]);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    }
    return true;
  };
  double used = damping;
  for (; used <= std::max(kMostDamping, damping); used += kDampingStep) {
    if (works(used, 0)) return used;
  }
  used = std::max(kMostDamping, damping);
  for (double floor = kLeastFloor; floor < 1.5; floor *= 10) {
    if (works(used, floor)) return used;
  }
  return std::nullopt;
}

void Pack(MatrixView<const double> upper, StripMatrix& out, ThreadPool& pool) {
  pool.ParallelForStealing(
      out.strips(), /*grain=*/1, [&](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s) {
          const int64_t first = s * kStripColumns;
          const int64_t last = std::min(first + kStripColumns, out.columns());
          float* to = out.strip(s);
          for (int64_t i = 0; i < last; ++i) {
            for (int64_t j = std::max(first, i); j < last; ++j) {
              to[i * kStripColumns + j - first] =
                  static_cast<float>(upper.row(i)[j]);
            }
          }
        }
      });
}

// pull H^-1 = (pull U^T) U, some rows of U at a time.
Array<float> Shift(MatrixView<const float> pull,
                   absl::Span<const int32_t> order,
                   MatrixView<const double> factor, ThreadPool& pool) {
  const int64_t rows = pull.rows, n = factor.rows;
  const auto copy = [&](bool back, MatrixView<const float> from,
                        MatrixView<float> to) {
    pool.ParallelFor(rows, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t c = 0; c < n; ++c) {
          to.row(i)[back ? order[c] : c] = from.row(i)[back ? c : order[c]];
        }
      }
    });
  };
  Array<float> ordered_memory(static_cast<size_t>(rows * n));
  Array<float> sum_memory(ordered_memory.size(), AlignedBuffer::Fill::kZero);
  Array<float> u_memory(static_cast<size_t>(kShiftRows * n));
  Array<float> part_memory(static_cast<size_t>(rows * kShiftRows));
  const MatrixView<float> ordered(ordered_memory.data(), rows, n);
  const MatrixView<float> sum(sum_memory.data(), rows, n);
  copy(/*back=*/false, pull, ordered);
  for (int64_t first = 0; first < n; first += kShiftRows) {
    // These rows of U are zero before column `first`.
    const int64_t count = std::min(kShiftRows, n - first), rest = n - first;
    const MatrixView<float> u(u_memory.data(), count, rest);
    pool.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const double* from = factor.row(first + i) + first;
        for (int64_t j = 0; j < rest; ++j) {
          u.row(i)[j] = static_cast<float>(from[j]);
        }
      }
    });
    const MatrixView<float> part(part_memory.data(), rows, count);
    GemmNT(ordered.Columns(first, rest), u, {}, part, pool);
    GemmNN(part, u, {GemmPrecision::kF32, /*accumulate=*/true},
           sum.Columns(first, rest), pool);
  }
  copy(/*back=*/true, sum, ordered);
  return ordered_memory;
}

std::vector<int32_t> OrderOf(const Gram& gram, bool act_order) {
  std::vector<int32_t> order(static_cast<size_t>(gram.inputs()));
  std::iota(order.begin(), order.end(), 0);
  if (act_order) {
    const absl::Span<const float> squares = gram.mean_squares();
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return squares[a] > squares[b];
    });
  }
  return order;
}

}  // namespace

MomentDiagonal DiagonalOf(const Gram& gram) {
  MomentDiagonal diagonal;
  int64_t active = 0;
  for (const float value : gram.mean_squares()) {
    diagonal.values.push_back(value);
    diagonal.mean += value;
    diagonal.most = std::max<double>(diagonal.most, value);
    active += value > 0;
  }
  diagonal.mean = active > 0 ? diagonal.mean / static_cast<double>(active) : 1;
  for (double& value : diagonal.values) {
    if (!(value > 0)) value = diagonal.mean;
  }
  return diagonal;
}

std::optional<DampedFactor> FactorDamped(const Gram& gram,
                                         const FactorOptions& options,
                                         ThreadPool& pool) {
  const int64_t n = gram.inputs();
  DampedFactor result;
  result.order = OrderOf(gram, options.act_order);
  Array<double> memory(static_cast<size_t>(n * n));
  const MatrixView<double> h(memory.data(), n, n);
  const std::optional<double> damping =
      Factor(gram, result.order, options.damping, h, pool);
  if (!damping.has_value()) return std::nullopt;
  result.damping_used = *damping;
  result.factor = StripMatrix(n, StripMatrix::Shape::kUpper);
  Pack(h, result.factor, pool);
  if (options.pull.rows > 0) {
    result.shift = Shift(options.pull, result.order, h, pool);
  }
  return result;
}

std::vector<double> ConditionalVariances(const Gram& gram,
                                         const FactorOptions& options,
                                         ThreadPool& pool) {
  const int64_t n = gram.inputs();
  const std::vector<int32_t> order = OrderOf(gram, options.act_order);
  Array<double> memory(static_cast<size_t>(n * n));
  const MatrixView<double> u(memory.data(), n, n);
  if (!Factor(gram, order, options.damping, u, pool)) return {};
  std::vector<double> variances(static_cast<size_t>(n));
  for (int64_t c = 0; c < n; ++c) {
    variances[static_cast<size_t>(order[static_cast<size_t>(c)])] =
        1 / (u.row(c)[c] * u.row(c)[c]);
  }
  return variances;
}

}  // namespace nibble
