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

// Means are over inputs that were active at all; others get the mean itself.
struct Diagonal {
  std::vector<double> values;  // [inputs], in the inputs' order
  double mean = 0;
  double most = 0;
};

Diagonal DiagonalOf(const Gram& gram) {
  Diagonal diagonal;
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

// The damped H on and above the diagonal, in order.
void Fill(const Gram& gram, const Diagonal& diagonal,
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
  const Diagonal diagonal = DiagonalOf(gram);
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

// share * triu(D U^T, 1) U, D in order.
StripMatrix Correction(const Gram& gram, absl::Span<const int32_t> order,
                       MatrixView<const double> factor, double share,
                       ThreadPool& pool) {
  const int64_t n = factor.rows;
  const size_t size = static_cast<size_t>(n * n);
  Array<float> u_memory(size), d_memory(size), product_memory(size);
  const MatrixView<float> u(u_memory.data(), n, n), d(d_memory.data(), n, n);
  const MatrixView<float> product(product_memory.data(), n, n);
  const MatrixView<const float> cross = gram.mean_cross();
  pool.ParallelFor(n, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float* from = cross.row(order[i]);
      for (int64_t j = 0; j < n; ++j) {
        u.row(i)[j] = static_cast<float>(factor.row(i)[j]);
        d.row(i)[j] = from[order[j]];
      }
    }
  });
  GemmNT(d, u, {}, product, pool);
  pool.ParallelFor(n, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::fill_n(product.row(i), i + 1, 0.0f);
    }
  });
  GemmNN(product, u, {}, d, pool);
  StripMatrix out(n, StripMatrix::Shape::kUpper);
  // In place of the factor's own type.
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) {
      out.strip(j / kStripColumns)[i * kStripColumns + j % kStripColumns] =
          static_cast<float>(share * d.row(i)[j]);
    }
  }
  return out;
}

}  // namespace

std::optional<DampedFactor> FactorDamped(const Gram& gram,
                                         const FactorOptions& options,
                                         ThreadPool& pool) {
  const int64_t n = gram.inputs();
  DampedFactor result;
  result.order.resize(static_cast<size_t>(n));
  std::iota(result.order.begin(), result.order.end(), 0);
  if (options.act_order) {
    const absl::Span<const float> squares = gram.mean_squares();
    std::stable_sort(
        result.order.begin(), result.order.end(),
        [&](int32_t a, int32_t b) { return squares[a] > squares[b]; });
  }
  Array<double> memory(static_cast<size_t>(n * n));
  const MatrixView<double> h(memory.data(), n, n);
  const std::optional<double> damping =
      Factor(gram, result.order, options.damping, h, pool);
  if (!damping.has_value()) return std::nullopt;
  result.damping_used = *damping;
  result.factor = StripMatrix(n, StripMatrix::Shape::kUpper);
  Pack(h, result.factor, pool);
  if (options.correction != 0) {
    result.correction =
        Correction(gram, result.order, h, options.correction, pool);
  }
  return result;
}

}  // namespace nibble
