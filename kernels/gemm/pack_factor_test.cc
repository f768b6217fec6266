// Packing in parts, and the moves of words under it.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/gemm/blocked_product.h"
#include "kernels/gemm/factor.h"
#include "kernels/gemm/words.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

TEST(BlockedProductTest, PartsGiveTheSameBitsAsTheWhole) {
  constexpr int64_t kRows = 530, kOutputs = 420, kDepth = 300;
  ThreadPool pool(2);
  const std::vector<float> a = RandomValues(kRows * kDepth, 1);
  const std::vector<float> b = RandomValues(kOutputs * kDepth, 2);
  const Factor rows = {MatrixView<const float>(a.data(), kDepth, kRows), true};
  const Factor columns = {MatrixView<const float>(b.data(), kOutputs, kDepth),
                          false};
  for (WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const PackedLayout layout = *PackedLayout::Create(format, kOutputs, kDepth);
    std::vector<float> whole(kRows * kOutputs), parts(kRows * kOutputs);
    Sums sums;
    sums.floats = MatrixView<float>(whole.data(), kRows, kOutputs);
    BlockedProduct(kRows, layout, false).Run(rows, columns, sums, pool);
    // One unit of rows and 4 tiles at a time.
    sums.floats = MatrixView<float>(parts.data(), kRows, kOutputs);
    BlockedProduct(kRows, layout, false, {1, 1}).Run(rows, columns, sums, pool);
    EXPECT_EQ(parts, whole);
  }
}

TEST(BlockedProductTest, PartsOfAnUpperHalfGiveTheSameBitsAsTheWhole) {
  constexpr int64_t kSize = 530, kDepth = 300;
  ThreadPool pool(2);
  const std::vector<float> x = RandomValues(kSize * kDepth, 1);
  const Factor columns = {MatrixView<const float>(x.data(), kDepth, kSize),
                          true};
  const PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kF32, kSize, kDepth);
  std::vector<double> whole(kSize * kSize), parts(kSize * kSize);
  Sums sums;
  sums.upper = true;
  sums.doubles = MatrixView<double>(whole.data(), kSize, kSize);
  BlockedProduct(kSize, layout, true).Run(columns, columns, sums, pool);
  sums.doubles = MatrixView<double>(parts.data(), kSize, kSize);
  BlockedProduct(kSize, layout, true, {1, 1}).Run(columns, columns, sums, pool);
  EXPECT_EQ(parts, whole);
  for (int64_t i = 0; i < kSize; ++i) EXPECT_NE(whole[i * kSize + i], 0.0);
}

class WordsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuSupports(GetParam())) GTEST_SKIP() << WhyUnsupported(GetParam());
    ASSERT_TRUE(LimitIsa(GetParam()).ok());
  }
  ~WordsTest() override { EXPECT_TRUE(LimitIsa(BestIsa()).ok()); }
};

TEST_P(WordsTest, TransposesAnySize) {
  for (int64_t rows : {1, 3, 4, 7, 16, 17, 33}) {
    for (int64_t cols : {1, 4, 5, 12, 16, 31}) {
      const int64_t in_stride = cols + 2, out_stride = rows + 3;
      std::vector<uint32_t> in(rows * in_stride), out(cols * out_stride, 7u);
      for (size_t i = 0; i < in.size(); ++i) in[i] = 1000 + i;
      TransposeWords(in.data(), in_stride, rows, cols, out.data(), out_stride);
      for (int64_t j = 0; j < cols; ++j) {
        for (int64_t i = 0; i < out_stride; ++i) {
          EXPECT_EQ(out[j * out_stride + i],
                    i < rows ? in[i * in_stride + j] : 7u);
        }
      }
    }
  }
}

TEST_P(WordsTest, PairsRoundAsToBF16DoesEvenWhatIsNotANumber) {
  using Limits = std::numeric_limits<float>;
  std::vector<float> values = RandomValues(40, 5);
  for (float value :
       {0.0f, -0.0f, Limits::max(), -Limits::max(), Limits::infinity(),
        -Limits::infinity(), Limits::quiet_NaN(), Limits::signaling_NaN(),
        Limits::min(), Limits::denorm_min(), 1.00390625f, 1.01171875f}) {
    values.push_back(value);
  }
  const std::vector<float> odd(values.rbegin(), values.rend());
  for (size_t count = 0; count <= values.size(); ++count) {
    std::vector<uint32_t> words(values.size() + 1, 7u), alone = words;
    PairRows(values.data(), odd.data(), count, words.data());
    PairRows(values.data(), nullptr, count, alone.data());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(words[i] & 0xFFFFu, ToBF16(values[i]).bits);
      EXPECT_EQ(words[i] >> 16, ToBF16(odd[i]).bits);
      EXPECT_EQ(alone[i], uint32_t{ToBF16(values[i]).bits});
    }
    EXPECT_EQ(words[count], 7u);
    EXPECT_EQ(alone[count], 7u);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, WordsTest, ::testing::ValuesIn(kAllIsas),
                         [](const auto& info) {
                           return std::string(IsaName(info.param));
                         });

}  // namespace
}  // namespace nibble
