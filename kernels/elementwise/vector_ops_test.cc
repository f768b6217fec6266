#include "kernels/elementwise/vector_ops.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/vector_kernels.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

class VectorTest : public VariantTest<VectorKernels> {};
INSTANTIATE_VARIANTS(VectorTest, VectorTable());

TEST_P(VectorTest, EveryElementIsRoundedOnce) {
  NormalNumbers normal(1);
  for (int64_t n : SweepSizes()) {
    for (int offset : {0, 1, 9}) {
      const std::vector<float> x = normal.Vector(n), y = normal.Vector(n);
      Misaligned sum(x, offset), product(x, offset), scaled(x, offset),
          fused(x, offset);
      kernels().add(y.data(), n, sum.data());
      kernels().multiply(y.data(), n, product.data());
      kernels().scale(0.3f, n, scaled.data());
      kernels().add_scaled(0.3f, y.data(), n, fused.data());
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(sum.data()[i], x[i] + y[i]);
        ASSERT_EQ(product.data()[i], x[i] * y[i]);
        ASSERT_EQ(scaled.data()[i], x[i] * 0.3f);
        ASSERT_EQ(fused.data()[i], std::fma(0.3f, y[i], x[i]));
      }
      EXPECT_TRUE(sum.Intact() && product.Intact());
      EXPECT_TRUE(scaled.Intact() && fused.Intact());
    }
  }
}

TEST(VectorApiTest, RowsMatchSingleCalls) {
  ThreadPool pool(2);
  NormalNumbers normal(2);
  const int64_t rows = 40, cols = 1000;
  const std::vector<float> y = normal.Vector(rows * cols);
  std::vector<float> x = normal.Vector(rows * cols);
  std::vector<float> expected = x;
  AddInPlace(y, absl::MakeSpan(expected));
  AddRowsInPlace({y.data(), rows, cols}, {x.data(), rows, cols}, pool);
  EXPECT_EQ(x, expected);
  MultiplyInPlace(y, absl::MakeSpan(x));
  ScaleInPlace(2.0f, absl::MakeSpan(x));
  AddScaledInPlace(-1.0f, y, absl::MakeSpan(x));
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i], std::fma(-1.0f, y[i], expected[i] * y[i] * 2.0f));
  }
}

}  // namespace
}  // namespace nibble
