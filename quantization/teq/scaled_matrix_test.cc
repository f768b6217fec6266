// The values of scaled matrices, and their slopes.
#include "quantization/teq/scaled_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/block/block_testing.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/rounding/round_matrix.h"
#include "quantization/tuning/training_testing.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"
#include "testing/random_tensor.h"

namespace nibble {
namespace {

using ::nibble::testing::GridName;
using ::nibble::testing::RandomValues;

constexpr GridSpec kZeros = {4, 32, CodeOffset::kZeros};

struct Scaled {
  explicit Scaled(uint64_t seed) {
    RandomValues random(seed);
    weights = random.Normal(kRows * kInputs, 0.1f);
    gradient = random.Normal(kRows * kInputs, 1.0f);
    for (const float x : random.Normal(kInputs, 0.5f)) {
      scales.push_back(std::exp(x));
    }
  }

  static constexpr int64_t kRows = 150, kInputs = 75;  // a last group of 11
  MatrixView<const float> w() const {
    return MatrixView<const float>(weights.data(), kRows, kInputs);
  }
  MatrixView<const float> g() const {
    return MatrixView<const float>(gradient.data(), kRows, kInputs);
  }

  std::vector<float> weights;
  std::vector<float> gradient;
  std::vector<float> scales;
};

std::vector<float> Nearest(const std::vector<float>& weights,
                           const GridSpec& spec, ThreadPool& pool) {
  RoundOptions options;
  options.spec = spec;
  std::vector<float> values(weights.size());
  Dequantize(RoundMatrix(MatrixView<const float>(weights.data(), Scaled::kRows,
                                                 Scaled::kInputs),
                         options, pool),
             MatrixView<float>(values.data(), Scaled::kRows, Scaled::kInputs),
             pool);
  return values;
}

TEST(ScaledMatrixTest, OnesAreRoundToNearest) {
  ThreadPool pool(2);
  const Scaled m(1);
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    ScaledMatrix matrix(m.w(), spec);
    matrix.Round(std::vector<float>(Scaled::kInputs, 1.0f), pool);
    const absl::Span<const float> got = testing::Flat(matrix.values());
    EXPECT_EQ(std::vector<float>(got.begin(), got.end()),
              Nearest(m.weights, spec, pool));
  }
}

TEST(ScaledMatrixTest, ValuesAreTheScaledMatrixRounded) {
  ThreadPool pool(2);
  const Scaled m(2);
  std::vector<float> product = m.weights;
  for (size_t i = 0; i < product.size(); ++i) {
    product[i] *= m.scales[i % Scaled::kInputs];
  }
  ScaledMatrix matrix(m.w(), kZeros);
  matrix.Round(m.scales, pool);
  const std::vector<float> rounded = Nearest(product, kZeros, pool);
  for (size_t i = 0; i < rounded.size(); ++i) {
    ASSERT_EQ(testing::Flat(matrix.values())[i],
              rounded[i] / m.scales[i % Scaled::kInputs]);
  }
}

// Uniform from -1/2 to 1/2 steps where residuals are 1, and that share of it
// elsewhere; whatever code a weight would have had.
TEST(ScaledMatrixTest, ResidualsAreErrorsSpreadOverTheStep) {
  ThreadPool pool(2);
  const Scaled m(4);
  std::vector<float> residuals(Scaled::kInputs, 1.0f);
  residuals[1] = 0.25f;
  residuals[2] = 0.0f;
  for (const GridSpec& spec : testing::kTrainedGrids) {
    SCOPED_TRACE(GridName(spec));
    ScaledMatrix matrix(m.w(), spec, residuals);
    matrix.Round(m.scales, pool);
    double sum = 0, squares = 0, small = 0;
    for (int64_t row = 0; row < Scaled::kRows; ++row) {
      std::vector<float> scaled(32);
      for (int64_t j = 0; j < 32; ++j) {
        scaled[j] = m.w().row(row)[j] * m.scales[j];
      }
      const double step = std::abs(double{FitGroup(scaled, spec).scale});
      const auto error = [&](int64_t j) {  // in steps
        return (double{matrix.values().row(row)[j]} - m.w().row(row)[j]) *
               m.scales[j] / step;
      };
      EXPECT_NEAR(error(2), 0, 1e-5);
      small += error(1) * error(1) / Scaled::kRows;
      for (int64_t j = 3; j < 32; ++j) {
        EXPECT_LE(std::abs(error(j)), 0.5001);
        sum += error(j) / (29 * Scaled::kRows);
        squares += error(j) * error(j) / (29 * Scaled::kRows);
      }
    }
    // Five standard deviations of means over 4350 and 150 weights.
    EXPECT_NEAR(sum, 0, 0.022);
    EXPECT_NEAR(squares, 1.0 / 12, 0.006);
    EXPECT_NEAR(small, 1.0 / 12 / 16, 0.002);
  }
}

TEST(ScaledMatrixTest, ResidualsDoNotJumpWhereTheLargestWeightChangesSides) {
  ThreadPool pool(1);
  const GridSpec spec = {4, 32, CodeOffset::kSymmetric};
  std::vector<float> weights(32, 0.1f);
  weights[3] = 1.0f;
  weights[4] = -1.0f;
  const std::vector<float> residuals(32, 1.0f);
  const MatrixView<const float> w(weights.data(), 1, 32);
  ScaledMatrix above(w, spec, residuals), below(w, spec, residuals);
  std::vector<float> scales(32, 1.0f);
  scales[3] = 1.0001f;
  above.Round(scales, pool);
  std::swap(scales[3], scales[4]);
  below.Round(scales, pool);
  for (int64_t j = 0; j < 32; ++j) {
    EXPECT_NEAR(above.values().row(0)[j], below.values().row(0)[j], 1e-3);
  }
}

// sum G value as a function of log scale j, with the residuals of rounding, in
// steps, what they are at the start. Steps follow the range of their group.
double FrozenLoss(const Scaled& m, const GridSpec& spec,
                  const ScaledMatrix& matrix, int64_t moved, double change) {
  double sum = 0;
  for (int64_t row = 0; row < Scaled::kRows; ++row) {
    const float* w = m.w().row(row);
    for (int64_t first = 0; first < Scaled::kInputs; first += 32) {
      const int64_t last = std::min<int64_t>(first + 32, Scaled::kInputs);
      const auto range = [&](bool at_start) {
        constexpr double kFar = std::numeric_limits<double>::infinity();
        const bool minimums = spec.offset == CodeOffset::kMinimums;
        double min = minimums ? kFar : 0, max = minimums ? -kFar : 0;
        for (int64_t j = first; j < last; ++j) {
          double x = static_cast<double>(w[j]) * m.scales[j];
          if (j == moved && !at_start) x *= std::exp(change);
          min = std::min(min, x);
          max = std::max(max, x);
        }
        if (spec.offset != CodeOffset::kSymmetric) return max - min;
        return max >= -min ? max : -min;
      };
      const double step = range(false) / range(true);
      for (int64_t j = first; j < last; ++j) {
        double scale = m.scales[j];
        const double residual =
            (static_cast<double>(matrix.values().row(row)[j]) - w[j]) * scale;
        if (j == moved) scale *= std::exp(change);
        sum += m.g().row(row)[j] * (w[j] + residual * step / scale);
      }
    }
  }
  return sum;
}

TEST(ScaledMatrixTest, SlopesAreFiniteDifferencesWithFrozenResiduals) {
  ThreadPool pool(2);
  Scaled m(3);
  // Groups above 0, and below, whose ranges do not hold it.
  for (int64_t row = 0; row < Scaled::kRows; ++row) {
    for (int64_t j = 0; j < 32; ++j) {
      float& w = m.weights[static_cast<size_t>(row * Scaled::kInputs + j)];
      if (row % 3 == 1) w = 1 + std::abs(w);
      if (row % 3 == 2) w = -1 - std::abs(w);
    }
  }
  for (const GridSpec& spec : {kZeros, GridSpec{4, 32, CodeOffset::kSymmetric},
                               GridSpec{2, 32, CodeOffset::kZeros},
                               GridSpec{4, 32, CodeOffset::kMinimums},
                               GridSpec{2, 32, CodeOffset::kMinimums}}) {
    for (const bool codes : {true, false}) {
      SCOPED_TRACE(GridName(spec) + (codes ? ", codes" : ", residuals"));
      const std::vector<float> residuals(codes ? 0 : Scaled::kInputs, 0.75f);
      ScaledMatrix matrix(m.w(), spec, residuals);
      matrix.Round(m.scales, pool);
      std::vector<double> slopes(Scaled::kInputs);
      matrix.AddSlopes(m.g(), absl::MakeSpan(slopes), pool);
      for (int64_t j = 0; j < Scaled::kInputs; ++j) {
        constexpr double kStep = 1e-6;
        const double want = (FrozenLoss(m, spec, matrix, j, kStep) -
                             FrozenLoss(m, spec, matrix, j, -kStep)) /
                            (2 * kStep);
        // Sums of at most 64 floats and their groups' errors, then doubles.
        EXPECT_NEAR(slopes[static_cast<size_t>(j)], want, 1e-4)
            << "input " << j;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
