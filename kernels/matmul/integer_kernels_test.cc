// Every variant with integer weights in the table against the scalar reference
// (bit for bit) and against sums in double (within the bound of matmul.h).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/reference.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

Activations ActivationsOf(const MatMulKernel& kernel) {
  if (kernel.panel == DType::kI8) return Activations::kInt8;
  return kernel.multiplied_as == WeightFormat::kF32 ? Activations::kF32
                                                    : Activations::kBF16;
}

const MatMulKernel& ReferenceOf(const MatMulKernel& kernel) {
  for (const MatMulKernel& reference : ReferenceMatMulKernels()) {
    if (KernelFits(reference, kernel.weights, ActivationsOf(kernel))) {
      return reference;
    }
  }
  return kernel;
}

class IntegerKernelTest : public ::testing::TestWithParam<size_t> {
 protected:
  const MatMulKernel& kernel() const { return MatMulKernels()[GetParam()]; }
  bool int8_activations() const { return kernel().panel == DType::kI8; }

  void SetUp() override {
    // Emulated tiles are never the best choice: they run where asked for.
    if (kernel().isa == Isa::kEmulatedAmx && CpuSupports(Isa::kEmulatedAmx)) {
      ASSERT_TRUE(LimitIsa(Isa::kEmulatedAmx).ok());
    }
    if (!KernelAllowed(kernel())) {
      GTEST_SKIP() << "this machine cannot run " << kernel().name;
    }
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }

  PackedLayout Layout(int64_t outputs, int64_t inputs, int64_t group_size,
                      bool symmetric = true, bool wide_scales = false) const {
    return *PackedLayout::Create(
        kernel().weights, outputs, inputs, group_size,
        symmetric || kernel().weights == WeightFormat::kInt8, wide_scales);
  }

  std::vector<float> Run(const MatMulKernel& variant,
                         const std::vector<float>& x, const PackedMatrix& w,
                         int threads = 1) const {
    ThreadPool pool(threads);
    const int64_t rows = static_cast<int64_t>(x.size()) / w.inputs();
    std::vector<float> y(static_cast<size_t>(rows * w.outputs()));
    MatMulOptions options;
    options.activations = ActivationsOf(variant);
    RunKernel(variant, MatrixView<const float>(x.data(), rows, w.inputs()), w,
              options, MatrixView<float>(y.data(), rows, w.outputs()), pool);
    return y;
  }

  void ExpectEqualBits(const std::vector<float>& got,
                       const std::vector<float>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(want[i])) {
        ASSERT_TRUE(std::isnan(got[i])) << "at " << i << ": " << got[i];
      } else {
        ASSERT_EQ(Bits(got[i]), Bits(want[i]))
            << "at " << i << ": " << got[i] << " against " << want[i];
      }
    }
  }

  // Bit for bit, or within rounding where the sums have another order.
  void ExpectEqualsReference(const std::vector<float>& x,
                             const PackedMatrix& w) {
    const std::vector<float> got = Run(kernel(), x, w);
    const std::vector<float> want = Run(ReferenceOf(kernel()), x, w);
    if (SumsInReferenceOrder(kernel())) {
      ExpectEqualBits(got, want);
      return;
    }
    ASSERT_EQ(got.size(), want.size());
    std::vector<float> weights(static_cast<size_t>(w.inputs()));
    for (int64_t n = 0; n < w.outputs(); ++n) {
      DequantizeRow(w, n, absl::MakeSpan(weights));
      for (size_t i = n; i < got.size(); i += w.outputs()) {
        const float* row = x.data() + i / w.outputs() * w.inputs();
        double magnitude = 0;
        for (int64_t k = 0; k < w.inputs(); ++k) {
          // Each factor is rounded up to bf16 at most.
          magnitude += std::abs(double{row[k]} * weights[k]) * (1 + 0x1p-6);
        }
        ASSERT_NEAR(got[i], want[i], TileSumTolerance(w.inputs(), magnitude));
      }
    }
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
  for (int64_t group_size : {128, 9000}) {
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
  const std::vector<float> together = Run(kernel(), x, w, 1);
  for (int threads : {2, 3}) {
    ExpectEqualBits(Run(kernel(), x, w, threads), together);
  }
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> one(x.begin() + row * kInputs,
                                 x.begin() + (row + 1) * kInputs);
    const std::vector<float> want(together.begin() + row * kOutputs,
                                  together.begin() + (row + 1) * kOutputs);
    ExpectEqualBits(Run(kernel(), one, w), want);
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
  for (float y : Run(kernel(), x, w.Pack())) ASSERT_EQ(Bits(y), 0u);
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
    const std::vector<float> got = Run(kernel(), x, w);
    const std::vector<float> want = Run(ReferenceOf(kernel()), x, w);
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
    const std::vector<float> good = Run(kernel(), x, w.Pack());
    x[3 * kInputs + 77] = bad;
    const std::vector<float> y = Run(kernel(), x, w.Pack());
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
  const std::vector<float> y = Run(kernel(), x, w.Pack());
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

std::string KernelName(const ::testing::TestParamInfo<size_t>& info) {
  return MatMulKernels()[info.param].name;
}

std::vector<size_t> RowsOfIntegerWeights() {
  std::vector<size_t> rows;
  for (size_t i = 0; i < MatMulKernels().size(); ++i) {
    if (IsInteger(MatMulKernels()[i].weights)) rows.push_back(i);
  }
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Table, IntegerKernelTest,
                         ::testing::ValuesIn(RowsOfIntegerWeights()),
                         KernelName);

}  // namespace
}  // namespace nibble
