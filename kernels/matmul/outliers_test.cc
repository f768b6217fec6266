#include "kernels/matmul/outliers.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kInputs = 204;  // groups of 64 and a short last one
constexpr int64_t kOutputs = 70;  // three records, the last ragged
constexpr int64_t kRows = 50;     // many
constexpr int64_t kGroup = 64;

std::vector<PackedLayout> Layouts() {
  std::vector<PackedLayout> layouts;
  for (const WeightFormat format : {WeightFormat::kInt4, WeightFormat::kInt8}) {
    for (const bool wide : {false, true}) {
      layouts.push_back(*PackedLayout::Create(format, kOutputs, kInputs, kGroup,
                                              /*symmetric=*/true, wide));
    }
  }
  layouts.push_back(*PackedLayout::Create(WeightFormat::kInt4, kOutputs,
                                          kInputs, kGroup,
                                          /*symmetric=*/false));
  for (const bool wide : {false, true}) {
    layouts.push_back(LayoutWithMinimums(kOutputs, kInputs, kGroup, wide));
  }
  return layouts;
}

// Values of which one in each group is 50 times larger, of either sign, at an
// input that differs from row to row.
std::vector<float> ValuesWithOutliers() {
  std::vector<float> x = RandomValues(kRows * kInputs, 3);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t g = 0; g < kInputs; g += kGroup) {
      const int64_t size = std::min(kGroup, kInputs - g);
      x[row * kInputs + g + (7 * row + g / 3) % size] =
          row % 2 == 0 ? 100.0f : -150.0f;
    }
  }
  return x;
}

std::vector<float> Multiply(const std::vector<float>& x,
                            const PackedMatrix& w) {
  ThreadPool pool(2);
  std::vector<float> y(static_cast<size_t>(kRows * kOutputs));
  MatMulOptions options;
  options.activations = Activations::kInt8;
  MatMul(MatrixView<const float>(x.data(), kRows, kInputs), w, options,
         MatrixView<float>(y.data(), kRows, kOutputs), pool);
  return y;
}

// The second largest magnitude of a group.
double Second(const float* x, int64_t count) {
  std::vector<double> magnitudes;
  for (int64_t i = 0; i < count; ++i) magnitudes.push_back(std::fabs(x[i]));
  std::nth_element(magnitudes.begin(), magnitudes.begin() + 1, magnitudes.end(),
                   std::greater<>());
  return magnitudes[1];
}

TEST(OutliersTest, OneLargeValueDoesNotCostTheOthersTheirPrecision) {
  const std::vector<float> x = ValuesWithOutliers();
  for (const PackedLayout& layout : Layouts()) {
    const IntegerMatrix w = RandomIntegers(layout, 5);
    const std::vector<float> y = Multiply(x, w.Pack());
    for (int64_t row = 0; row < kRows; ++row) {
      const float* values = x.data() + row * kInputs;
      for (int64_t n = 0; n < kOutputs; ++n) {
        double sum = 0, magnitude = 0, rounding = 0;
        for (int64_t k = 0; k < kInputs; ++k) {
          const int64_t g = k / kGroup * kGroup;
          const double second =
              Second(values + g, std::min(kGroup, kInputs - g));
          sum += double{w.Weight(n, k)} * values[k];
          magnitude += std::fabs(double{w.Weight(n, k)} * values[k]);
          rounding += std::fabs(w.Weight(n, k)) * second / 254;
        }
        ASSERT_NEAR(y[row * kOutputs + n], sum,
                    1.0001 * rounding + 2 * SumErrorFactor(kInputs) * magnitude)
            << WeightFormatName(layout.format) << " row " << row << " output "
            << n;
      }
    }
  }
}

TEST(OutliersTest, GiveTheSameBitsOnEveryIsa) {
  const std::vector<float> x = ValuesWithOutliers();
  for (const PackedLayout& layout : Layouts()) {
    const PackedMatrix w = RandomIntegers(layout, 6).Pack();
    ASSERT_TRUE(LimitIsa(Isa::kScalar).ok());
    const std::vector<float> want = Multiply(x, w);
    for (const Isa isa : kAllIsas) {
      if (!CpuSupports(isa)) continue;
      ASSERT_TRUE(LimitIsa(isa).ok());
      const std::vector<float> got = Multiply(x, w);
      EXPECT_EQ(
          std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
          << IsaName(isa) << " " << WeightFormatName(layout.format);
    }
    ASSERT_TRUE(LimitIsa(BestIsa()).ok());
  }
}

TEST(OutliersTest, ARowIsTheSameWhicheverRowsShareTheCall) {
  const std::vector<float> x = ValuesWithOutliers();
  const PackedMatrix w = RandomIntegers(Layouts()[0], 7).Pack();
  const std::vector<float> all = Multiply(x, w);
  ThreadPool pool(1);
  MatMulOptions options;
  options.activations = Activations::kInt8;
  for (const int64_t rows : {1, 5}) {  // too few to be sorted
    for (int64_t row = 0; row + rows <= kRows; row += rows) {
      std::vector<float> y(static_cast<size_t>(rows * kOutputs));
      MatMul(MatrixView<const float>(x.data() + row * kInputs, rows, kInputs),
             w, options, MatrixView<float>(y.data(), rows, kOutputs), pool);
      EXPECT_EQ(std::memcmp(y.data(), all.data() + row * kOutputs,
                            y.size() * sizeof(float)),
                0)
          << row;
    }
  }
}

}  // namespace
}  // namespace nibble
