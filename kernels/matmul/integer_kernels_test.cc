// Every variant with integer weights in the table against the scalar reference
// (bit for bit) and against sums in double (within the bound of matmul.h).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/kernel_variants.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/test_matrices.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class IntegerKernelTest : public KernelVariantTest {
 protected:
  PackedLayout Layout(int64_t outputs, int64_t inputs, int64_t group_size,
                      bool symmetric = true, bool wide_scales = false) const {
    return *PackedLayout::Create(
        kernel().weights, outputs, inputs, group_size,
        symmetric || kernel().weights == WeightFormat::kInt8, wide_scales);
  }
};

TEST_P(IntegerKernelTest, EqualsTheReferenceForTailsOfRowsOutputsAndInputs) {
  for (int64_t inputs : {1, 4, 7, 8, 31, 33, 64, 100, 257, 321}) {
    for (int64_t outputs : {1, 16, 17, 32, 33, 70}) {
      for (int64_t rows : {1, 2, 5, 27}) {
        SCOPED_TRACE(testing::Message()
                     << rows << " x " << inputs << " x " << outputs);
        const IntegerMatrix w = RandomIntegers(
            Layout(outputs, inputs, 64, /*symmetric=*/inputs % 2 == 0), 1);
        ExpectEqualsReference(RandomValues(rows * inputs, 2), w.Pack());
      }
    }
  }
}

TEST_P(IntegerKernelTest, EqualsTheReferenceForEveryGroupSize) {
  constexpr int64_t kInputs = 1100;  // a ragged last group, chunk and block
  for (int64_t group_size : {32, 64, 96, 128, 256, 512, 1024, 4096}) {
    for (bool symmetric : {true, false}) {
      for (bool wide_scales : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << group_size << " " << symmetric << " " << wide_scales);
        const IntegerMatrix w = RandomIntegers(
            Layout(33, kInputs, group_size, symmetric, wide_scales), 1);
        const PackedMatrix packed = w.Pack();
        for (int64_t rows : {1, 26}) {
          ExpectEqualsReference(RandomValues(rows * kInputs, 2), packed);
        }
      }
    }
  }
}

// Falcon 7B's hidden size and Llama 7B's MLP: not multiples of every group.
TEST_P(IntegerKernelTest, EqualsTheReferenceForTheWidthsOfModels) {
  for (int64_t inputs : {4544, 11008}) {
    for (int64_t group_size : {32, 64, 128, 256, 512, 1024, 16384}) {
      SCOPED_TRACE(testing::Message() << inputs << " " << group_size);
      const bool symmetric = group_size % 128 == 0;
      const PackedMatrix w =
          RandomIntegers(Layout(3, inputs, group_size, symmetric), 1).Pack();
      for (int64_t rows : {1, 13}) {
        ExpectEqualsReference(RandomValues(rows * inputs, 2), w);
      }
    }
  }
}

TEST_P(IntegerKernelTest, EqualsTheReferenceForEveryNumberOfRows) {
  for (bool symmetric : {true, false}) {
    const PackedMatrix w =
        RandomIntegers(Layout(40, 200, 64, symmetric), 1).Pack();
    // Every size of a group of rows; 513 rows take two passes.
    for (int64_t rows :
         {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
          16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 31, 32, 33, 64, 513}) {
      SCOPED_TRACE(rows);
      ExpectEqualsReference(RandomValues(rows * 200, 2), w);
    }
  }
}

TEST_P(IntegerKernelTest, LongRowsEqualTheReference) {
  // Several blocks of K of the kernels that decode ahead.
  constexpr int64_t kInputs = 9000;
  for (int64_t group_size : {32, 128, 9000}) {
    const PackedMatrix w =
        RandomIntegers(Layout(64, kInputs, group_size, false), 1).Pack();
    for (int64_t rows : {1, 30}) {
      ExpectEqualsReference(RandomValues(rows * kInputs, 2), w);
    }
  }
}

TEST_P(IntegerKernelTest, RowsDoNotDependOnTheirNumberOrTheThreads) {
  constexpr int64_t kInputs = 300, kOutputs = 200, kRows = 30;
  const PackedMatrix w =
      RandomIntegers(Layout(kOutputs, kInputs, 32, false), 1).Pack();
  const std::vector<float> x = RandomValues(kRows * kInputs, 2);
  const std::vector<float> together = Run(x, w, 1);
  for (int threads : {2, 3}) {
    ExpectEqualBits(Run(x, w, threads), together);
  }
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> one(x.begin() + row * kInputs,
                                 x.begin() + (row + 1) * kInputs);
    const std::vector<float> want(together.begin() + row * kOutputs,
                                  together.begin() + (row + 1) * kOutputs);
    ExpectEqualBits(Run(one, w), want);
  }
}

// The extremes of the integer sums: where an instruction saturates, or sums of
// 16 bits overflow, it shows here.
TEST_P(IntegerKernelTest, ExtremeCodesMeetExtremeActivations) {
  constexpr int64_t kInputs = 2048;
  for (int64_t group_size : {32, 128, 2048}) {
    for (bool symmetric : {true, false}) {
      IntegerMatrix w =
          RandomIntegers(Layout(64, kInputs, group_size, symmetric), 1);
      const uint8_t top = w.layout.format == WeightFormat::kInt8 ? 255 : 15;
      for (int64_t n = 0; n < 64; ++n) {
        uint8_t* codes = w.codes.data() + n * kInputs;
        for (int64_t k = 0; k < kInputs; ++k) {
          codes[k] = n % 4 == 0   ? top
                     : n % 4 == 1 ? 0
                     : n % 4 == 2 ? (k % 2 == 0 ? top : 0)
                                  : (k / 4 % 2 == 0 ? 0 : top);
        }
      }
      for (size_t i = 0; i < w.zeros.size(); ++i) {
        w.zeros[i] = i % 3 == 0 ? 0 : 15;
      }
      const PackedMatrix packed = w.Pack();
      for (int64_t rows : {1, 4, 30}) {
        std::vector<float> x(static_cast<size_t>(rows * kInputs));
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t row = i / kInputs;
          x[i] = row % 3 == 0   ? 1.0f
                 : row % 3 == 1 ? -1.0f
                                : (i % 2 == 0 ? 1.0f : -1.0f);
        }
        ExpectEqualsReference(x, packed);
      }
    }
  }
}

TEST_P(IntegerKernelTest, GroupsOfZeroScaleAndZeroActivationsGiveZero) {
  IntegerMatrix w = RandomIntegers(Layout(33, 128, 32, false), 1);
  for (size_t i = 0; i < w.scales.size(); i += 2) w.scales[i] = 0.0f;
  std::vector<float> x = RandomValues(30 * 128, 2);
  std::fill(x.begin() + 32, x.begin() + 64, 0.0f);
  ExpectEqualsReference(x, w.Pack());
  std::fill(x.begin(), x.end(), 0.0f);
  for (float y : Run(x, w.Pack())) ASSERT_EQ(Bits(y), 0u);
}

TEST_P(IntegerKernelTest, TinyActivationsEqualTheReference) {
  const PackedMatrix w = RandomIntegers(Layout(20, 128, 32, false), 1).Pack();
  for (int exponent : {-20, -90, -101, -110, -130, -145}) {
    std::vector<float> x = RandomValues(30 * 128, 2);
    for (float& value : x) value = std::ldexp(value, exponent);
    SCOPED_TRACE(exponent);
    if (int8_activations() || !SumsInReferenceOrder(kernel())) {
      ExpectEqualsReference(x, w);
      continue;
    }
    // VDPBF16PS takes subnormal operands and results for zero.
    const std::vector<float> got = Run(x, w);
    const std::vector<float> want = RunReference(x, w);
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], 128 * std::numeric_limits<float>::min());
    }
  }
}

TEST_P(IntegerKernelTest, NaNAndInfiniteActivationsSpoilTheirRowOnly) {
  constexpr int64_t kInputs = 160, kOutputs = 40, kRows = 29;
  IntegerMatrix w = RandomIntegers(Layout(kOutputs, kInputs, 32, false), 1);
  for (float bad : {kNaN, kInfinity, -kInfinity}) {
    std::vector<float> x = RandomValues(kRows * kInputs, 2);
    const std::vector<float> good = Run(x, w.Pack());
    x[3 * kInputs + 77] = bad;
    const std::vector<float> y = Run(x, w.Pack());
    for (int64_t i = 0; i < kRows * kOutputs; ++i) {
      if (i / kOutputs == 3) {
        ASSERT_FALSE(std::isfinite(y[i]));
      } else {
        ASSERT_EQ(Bits(y[i]), Bits(good[i]));
      }
    }
  }
}

// |y - sum_k w x| against the error that rounding the activations to 8 bits
// (half a step of each group), or to bf16, and summing in f32 may make.
TEST_P(IntegerKernelTest, IsWithinTheRoundingBoundOfTheDequantizedProduct) {
  constexpr int64_t kInputs = 700, kOutputs = 40, kRows = 3;
  constexpr int64_t kGroup = 64;
  const IntegerMatrix w =
      RandomIntegers(Layout(kOutputs, kInputs, kGroup, false), 1);
  const std::vector<float> x = RandomValues(kRows * kInputs, 2);
  const std::vector<float> y = Run(x, w.Pack());
  constexpr double kBF16Error = 2.0 / 256;  // of both factors, and a little
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t n = 0; n < kOutputs; ++n) {
      double sum = 0, magnitude = 0, rounding = 0;
      for (int64_t g = 0; g < kInputs; g += kGroup) {
        double amax = 0;
        const int64_t end = std::min(kInputs, g + kGroup);
        for (int64_t k = g; k < end; ++k) {
          amax = std::max(amax, std::fabs(double{x[row * kInputs + k]}));
        }
        for (int64_t k = g; k < end; ++k) {
          const double product = double{w.Weight(n, k)} * x[row * kInputs + k];
          sum += product;
          magnitude += std::fabs(product);
          rounding += std::fabs(w.Weight(n, k)) * amax / 254;
        }
      }
      double bound = SumErrorFactor(kInputs) * magnitude;
      if (int8_activations()) bound = 1.0001 * rounding + 2 * bound;
      if (ActivationsOf(kernel()) == Activations::kBF16) {
        bound += kBF16Error * magnitude;
      }
      ASSERT_NEAR(y[row * kOutputs + n], sum, bound) << row << " " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Int8, IntegerKernelTest,
                         ::testing::ValuesIn(VariantsOf(WeightFormat::kInt8)),
                         VariantName);
INSTANTIATE_TEST_SUITE_P(Int4, IntegerKernelTest,
                         ::testing::ValuesIn(VariantsOf(WeightFormat::kInt4)),
                         VariantName);

}  // namespace
}  // namespace nibble
