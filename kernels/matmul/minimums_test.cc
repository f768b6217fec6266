// INT4 weights with minimums: every variant of the table against the scalar
// reference (bit for bit) and against sums in double, and the minimums' part by
// itself.
#include "kernels/matmul/minimums.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/kernel_variants.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

class MinimumsTest : public KernelVariantTest {};

TEST_P(MinimumsTest, EqualsTheReferenceForTailsOfRowsOutputsAndInputs) {
  for (int64_t inputs : {1, 4, 7, 8, 31, 33, 64, 100, 257, 321}) {
    for (int64_t outputs : {1, 16, 17, 33, 70}) {
      const PackedMatrix w =
          RandomIntegers(LayoutWithMinimums(outputs, inputs, 64), 1).Pack();
      for (int64_t rows : {1, 2, 5, 27}) {
        SCOPED_TRACE(testing::Message()
                     << rows << " x " << inputs << " x " << outputs);
        ExpectEqualsReference(RandomValues(rows * inputs, 2), w);
      }
    }
  }
}

TEST_P(MinimumsTest, EqualsTheReferenceForEveryGroupSize) {
  constexpr int64_t kInputs = 1100;  // a ragged last group, chunk and block
  for (int64_t group_size : {32, 64, 96, 128, 256, 512, 1024, 4096}) {
    for (bool wide_scales : {false, true}) {
      SCOPED_TRACE(testing::Message() << group_size << " " << wide_scales);
      const PackedMatrix w =
          RandomIntegers(
              LayoutWithMinimums(33, kInputs, group_size, wide_scales), 1)
              .Pack();
      for (int64_t rows : {1, 26}) {
        ExpectEqualsReference(RandomValues(rows * kInputs, 2), w);
      }
    }
  }
}

// Falcon 7B's hidden size and Llama 7B's MLP: not multiples of every group.
TEST_P(MinimumsTest, EqualsTheReferenceForTheWidthsOfModels) {
  for (int64_t inputs : {4544, 11008}) {
    for (int64_t group_size : {32, 64, 128, 256, 512, 1024, 16384}) {
      SCOPED_TRACE(testing::Message() << inputs << " " << group_size);
      const PackedMatrix w =
          RandomIntegers(LayoutWithMinimums(3, inputs, group_size), 1).Pack();
      for (int64_t rows : {1, 13}) {
        ExpectEqualsReference(RandomValues(rows * inputs, 2), w);
      }
    }
  }
}

TEST_P(MinimumsTest, EqualsTheReferenceForEveryNumberOfRows) {
  const PackedMatrix w =
      RandomIntegers(LayoutWithMinimums(40, 200, 64), 1).Pack();
  for (int64_t rows = 1; rows <= 33; ++rows) {
    SCOPED_TRACE(rows);
    ExpectEqualsReference(RandomValues(rows * 200, 2), w);
  }
  ExpectEqualsReference(RandomValues(513 * 200, 2), w);  // two passes
}

TEST_P(MinimumsTest, RowsDoNotDependOnTheirNumberOrTheThreads) {
  constexpr int64_t kInputs = 300, kOutputs = 200, kRows = 30;
  const PackedMatrix w =
      RandomIntegers(LayoutWithMinimums(kOutputs, kInputs, 32), 1).Pack();
  const std::vector<float> x = RandomValues(kRows * kInputs, 2);
  const std::vector<float> together = Run(x, w, 1);
  for (int threads : {2, 3}) ExpectEqualBits(Run(x, w, threads), together);
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> one(x.begin() + row * kInputs,
                                 x.begin() + (row + 1) * kInputs);
    const std::vector<float> want(together.begin() + row * kOutputs,
                                  together.begin() + (row + 1) * kOutputs);
    ExpectEqualBits(Run(one, w), want);
  }
}

TEST_P(MinimumsTest, NaNAndInfiniteActivationsSpoilTheirRowOnly) {
  constexpr int64_t kInputs = 160, kOutputs = 40, kRows = 29;
  const PackedMatrix w =
      RandomIntegers(LayoutWithMinimums(kOutputs, kInputs, 32), 1).Pack();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    std::vector<float> x = RandomValues(kRows * kInputs, 2);
    const std::vector<float> good = Run(x, w);
    x[3 * kInputs + 77] = bad;
    const std::vector<float> y = Run(x, w);
    for (int64_t i = 0; i < kRows * kOutputs; ++i) {
      if (i / kOutputs == 3) {
        ASSERT_FALSE(std::isfinite(y[i]));
      } else {
        ASSERT_EQ(Bits(y[i]), Bits(good[i]));
      }
    }
  }
}

TEST_P(MinimumsTest, GroupsOfScaleZeroAreTheirMinimum) {
  constexpr int64_t kInputs = 96, kOutputs = 35, kRows = 14;
  IntegerMatrix w =
      RandomIntegers(LayoutWithMinimums(kOutputs, kInputs, 32), 1);
  std::fill(w.scales.begin(), w.scales.end(), 0.0f);
  for (size_t i = 0; i < w.minimums.size(); ++i) {
    w.minimums[i] = static_cast<float>(static_cast<int>(i % 7) - 3);
  }
  // Whole numbers up to 127 keep their values in 8 bits, and all sums exact.
  std::vector<float> x(kRows * kInputs);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = i % 32 < 2 ? 127.0f : static_cast<float>(i * 7 % 31) - 15.0f;
  }
  const std::vector<float> y = Run(x, w.Pack());
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t n = 0; n < kOutputs; ++n) {
      float want = 0;
      for (int64_t k = 0; k < kInputs; ++k) {
        want += x[row * kInputs + k] * w.minimums[n * 3 + k / 32];
      }
      ASSERT_EQ(y[row * kOutputs + n], want) << row << " " << n;
    }
  }
}

// |y - sum_k w x| against the error that rounding the activations to 8 bits
// (half a step of each group), or both factors to bf16, and summing in f32 may
// make. Codes and minimums are summed apart, so each counts by itself.
TEST_P(MinimumsTest, IsWithinTheRoundingBoundOfTheDequantizedProduct) {
  constexpr int64_t kInputs = 700, kOutputs = 40, kRows = 15;
  constexpr int64_t kGroup = 64;
  for (bool wide_scales : {false, true}) {
    const IntegerMatrix w = RandomIntegers(
        LayoutWithMinimums(kOutputs, kInputs, kGroup, wide_scales), 1);
    const std::vector<float> x = RandomValues(kRows * kInputs, 2);
    const std::vector<float> y = Run(x, w.Pack());
    const int64_t groups = w.layout.groups();
    for (int64_t i = 0; i < kRows * kOutputs; ++i) {
      const int64_t row = i / kOutputs, n = i % kOutputs;
      double sum = 0, magnitude = 0, rounding = 0;
      for (int64_t k = 0; k < kInputs; ++k) {
        const int64_t first = k / kGroup * kGroup;
        double amax = 0;
        for (int64_t j = first; j < std::min(kInputs, first + kGroup); ++j) {
          amax = std::max(amax, std::fabs(double{x[row * kInputs + j]}));
        }
        const int64_t group = n * groups + k / kGroup;
        const double codes = double{w.scales[group]} * w.codes[n * kInputs + k];
        const double value = x[row * kInputs + k];
        const double weight = codes + w.minimums[group];
        sum += weight * value;
        magnitude += (std::fabs(codes) + std::fabs(w.minimums[group])) *
                     std::max(std::fabs(value), amax / 127);
        rounding += std::fabs(weight) * amax / 254;
      }
      double bound = 2 * SumErrorFactor(kInputs) * magnitude;
      if (int8_activations()) bound += 1.0001 * rounding;
      if (ActivationsOf(kernel()) == Activations::kBF16) {
        bound += magnitude * 2.0 / 256;
      }
      ASSERT_NEAR(y[i], sum, bound) << row << " " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, MinimumsTest,
                         ::testing::ValuesIn(VariantsOf(WeightFormat::kInt4)),
                         VariantName);

class AddMinimumsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuSupports(GetParam())) GTEST_SKIP() << IsaName(GetParam());
    ASSERT_TRUE(LimitIsa(GetParam()).ok());
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }
};

TEST_P(AddMinimumsTest, IsOneFusedMultiplyAddAGroup) {
  constexpr int64_t kInputs = 400, kRecords = 5, kStride = 4 * 32 + 16;
  for (bool wide_scales : {false, true}) {
    const IntegerMatrix w = RandomIntegers(
        LayoutWithMinimums(kRecords * 32, kInputs, 32, wide_scales), 1);
    const PackedMatrix packed = w.Pack();
    const int64_t groups = w.layout.groups();
    for (int64_t rows = 1; rows <= 30; ++rows) {
      const std::vector<float> group_sums = RandomValues(rows * groups, 2);
      const std::vector<float> before = RandomValues(rows * kStride, 3);
      Panel panel{RowGroups(rows, 12), nullptr};
      panel.group_sums = group_sums.data();
      const Product product = {&w.layout, packed.data(), panel};
      for (int64_t records = 1; records <= 4; ++records) {
        std::vector<float> sums = before;
        AddMinimums(product, 1, 1 + records, {sums.data(), kStride});
        std::vector<float> want = before;
        for (int64_t i = 0; i < rows * records * 32; ++i) {
          const int64_t row = i / (records * 32), n = i % (records * 32);
          float& sum = want[row * kStride + n];
          for (int64_t g = 0; g < groups; ++g) {
            sum = std::fma(group_sums[row * groups + g],
                           w.minimums[(32 + n) * groups + g], sum);
          }
        }
        SCOPED_TRACE(testing::Message() << rows << " x " << records);
        ExpectEqualBits(sums, want);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, AddMinimumsTest, ::testing::ValuesIn(kAllIsas),
                         [](const ::testing::TestParamInfo<Isa>& info) {
                           return std::string(IsaName(info.param));
                         });

TEST(SumGroups, AreTheScaledSumsOfTheValues) {
  const PackedLayout layout = LayoutWithMinimums(32, 130, 64);
  for (int threads : {1, 2}) {
    ThreadPool pool(threads);
    for (int64_t rows : {1, 5, 3000}) {  // few sums, and enough to share
      const RowGroups groups(rows, 4);
      const std::vector<float> scales = RandomValues(rows * 3, 1);
      std::vector<int32_t> minus_sums(static_cast<size_t>(rows * 3));
      for (size_t i = 0; i < minus_sums.size(); ++i) {
        minus_sums[i] = static_cast<int32_t>(i * 37 % 9001) - 4000;
      }
      const Panel panel{groups, nullptr, scales.data(), minus_sums.data()};
      std::vector<float> sums(static_cast<size_t>(GroupSumBytes(layout, rows)) /
                              sizeof(float));
      SumGroups(panel, layout, sums.data(), pool);
      for (int64_t block = 0; block < groups.count; ++block) {
        const int64_t size = groups.Size(block);
        for (int64_t i = 0; i < size * 3; ++i) {
          const int64_t r = i % size, g = i / size;
          const int64_t at = groups.Begin(block) * 3 + i;
          ASSERT_EQ(sums[(groups.Begin(block) + r) * 3 + g],
                    scales[at] * static_cast<float>(-minus_sums[at]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
