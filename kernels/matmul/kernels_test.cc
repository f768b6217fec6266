// Every variant with float weights in the table against the scalar reference
// (bit for bit) and against sums in double (within the bound that matmul.h
// states).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/reference.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Row-major operands of one product; weights as they are after rounding.
struct Operands {
  int64_t rows, inputs, outputs;
  std::vector<float> x;  // [rows, inputs]
  std::vector<float> w;  // [outputs, inputs]
};

class KernelTest : public ::testing::TestWithParam<size_t> {
 protected:
  const MatMulKernel& kernel() const { return MatMulKernels()[GetParam()]; }

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

  Operands Random(int64_t rows, int64_t inputs, int64_t outputs) const {
    Operands o = {rows, inputs, outputs, RandomValues(rows * inputs, 1),
                  RandomValues(outputs * inputs, 2)};
    if (kernel().weights == WeightFormat::kBF16) o.w = RoundedToBF16(o.w);
    return o;
  }

  MatMulOptions Options() const {
    MatMulOptions options;
    options.activations =
        kernel().panel == DType::kBF16 ? Activations::kBF16 : Activations::kF32;
    return options;
  }

  // The activations as they are multiplied.
  std::vector<float> Seen(const std::vector<float>& x) const {
    return kernel().panel == DType::kBF16 ? RoundedToBF16(x) : x;
  }

  std::vector<float> Run(const MatMulKernel& variant, const Operands& o,
                         const MatMulOptions& options, int threads,
                         std::vector<float> y) const {
    ThreadPool pool(threads);
    const PackedMatrix w =
        Pack(o.w, o.outputs, o.inputs, variant.weights, pool);
    RunKernel(variant, MatrixView<const float>(o.x.data(), o.rows, o.inputs), w,
              options, MatrixView<float>(y.data(), o.rows, o.outputs), pool);
    return y;
  }

  std::vector<float> Run(const Operands& o, int threads = 1) const {
    return Run(kernel(), o, Options(), threads,
               std::vector<float>(o.rows * o.outputs));
  }

  std::vector<float> Reference(const Operands& o) const {
    for (const MatMulKernel& reference : ReferenceMatMulKernels()) {
      if (reference.weights != kernel().weights) continue;
      return Run(reference, o, Options(), 1,
                 std::vector<float>(o.rows * o.outputs));
    }
    return {};
  }

  void ExpectEqualBits(const std::vector<float>& got,
                       const std::vector<float>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(Bits(got[i]), Bits(want[i]))
          << "at " << i << ": " << got[i] << " against " << want[i];
    }
  }

  // Bit for bit, or within rounding where the sums have another order.
  void ExpectEqualsReference(const Operands& o) {
    const std::vector<float> got = Run(o), want = Reference(o);
    if (SumsInReferenceOrder(kernel())) {
      ExpectEqualBits(got, want);
      return;
    }
    ASSERT_EQ(got.size(), want.size());
    const std::vector<float> seen = Seen(o.x);
    for (size_t i = 0; i < got.size(); ++i) {
      const float* x = seen.data() + i / o.outputs * o.inputs;
      const float* w = o.w.data() + i % o.outputs * o.inputs;
      double magnitude = 0;
      for (int64_t k = 0; k < o.inputs; ++k) {
        magnitude += std::abs(double{x[k]} * w[k]);
      }
      ASSERT_NEAR(got[i], want[i], TileSumTolerance(o.inputs, magnitude));
    }
  }
};

TEST_P(KernelTest, EqualsTheReferenceForTailsOfRowsOutputsAndInputs) {
  for (int64_t inputs : {1, 2, 3, 16, 255, 256, 257, 511, 512, 513, 600}) {
    for (int64_t outputs : {1, 15, 16, 17, 33, 80}) {
      for (int64_t rows : {1, 2, 5}) {
        const Operands o = Random(rows, inputs, outputs);
        SCOPED_TRACE(testing::Message()
                     << rows << " x " << inputs << " x " << outputs);
        ExpectEqualsReference(o);
      }
    }
  }
}

TEST_P(KernelTest, EqualsTheReferenceForEveryGroupSize) {
  // Groups have up to 12 rows; 513 rows take two passes.
  for (int64_t rows : {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                       11, 12, 13, 14, 18, 23, 24, 25, 37, 513}) {
    const Operands o = Random(rows, 300, 48);
    SCOPED_TRACE(rows);
    ExpectEqualsReference(o);
  }
}

TEST_P(KernelTest, StaysWithinTheStatedErrorBound) {
  for (int64_t inputs : {1, 7, 256, 1000, 4097}) {
    const Operands o = Random(3, inputs, 19);
    const std::vector<float> seen = Seen(o.x);
    const std::vector<float> y = Run(o);
    for (int64_t m = 0; m < o.rows; ++m) {
      for (int64_t n = 0; n < o.outputs; ++n) {
        double sum = 0, magnitude = 0;
        for (int64_t k = 0; k < inputs; ++k) {
          const double product =
              static_cast<double>(seen[m * inputs + k]) * o.w[n * inputs + k];
          sum += product;
          magnitude += std::abs(product);
        }
        ASSERT_NEAR(y[m * o.outputs + n], sum,
                    SumErrorFactor(inputs) * magnitude)
            << inputs;
      }
    }
  }
}

TEST_P(KernelTest, BitsOfARowDoNotDependOnOtherRows) {
  const Operands all = Random(29, 515, 50);
  const std::vector<float> together = Run(all);
  for (int64_t first : {0, 1, 12, 27}) {
    for (int64_t count : {1, 2, 7}) {
      if (first + count > all.rows) continue;
      Operands part = all;
      part.rows = count;
      part.x.assign(all.x.begin() + first * all.inputs,
                    all.x.begin() + (first + count) * all.inputs);
      const std::vector<float> want(
          together.begin() + first * all.outputs,
          together.begin() + (first + count) * all.outputs);
      ExpectEqualBits(Run(part), want);
    }
  }
}

TEST_P(KernelTest, BitsDoNotDependOnThreads) {
  for (int64_t rows : {1, 3, 40}) {
    const Operands o = Random(rows, 700, 16 * 7 + 3);
    const std::vector<float> one = Run(o, 1);
    for (int threads : {2, 3, 5, 16}) ExpectEqualBits(Run(o, threads), one);
  }
}

TEST_P(KernelTest, AddsBiasAndOldValues) {
  for (int64_t outputs : {5, 16, 37}) {
    const Operands o = Random(4, 300, outputs);
    const std::vector<float> bias = RandomValues(outputs, 3);
    const std::vector<float> old = RandomValues(4 * outputs, 4);
    const std::vector<float> product = Run(o);
    for (bool has_bias : {false, true}) {
      for (bool accumulate : {false, true}) {
        MatMulOptions options = Options();
        options.bias = has_bias ? bias.data() : nullptr;
        options.accumulate = accumulate;
        std::vector<float> want = product;
        for (size_t i = 0; i < want.size(); ++i) {
          if (has_bias) want[i] += bias[i % outputs];
          if (accumulate) want[i] += old[i];
        }
        ExpectEqualBits(Run(kernel(), o, options, 2, old), want);
      }
    }
  }
}

TEST_P(KernelTest, ReadsAndWritesOnlyTheRowsWhateverStrideAndAlignment) {
  ThreadPool pool(2);
  for (int64_t offset : {0, 1, 3}) {
    for (int64_t rows : {1, 3, 14}) {
      const Operands o = Random(rows, 259, 21);
      const std::vector<float> want = Run(o);
      GuardedMatrix x(rows, o.inputs, o.inputs + 5, offset);
      GuardedMatrix y(rows, o.outputs, o.outputs + 3, offset);
      for (int64_t i = 0; i < rows * o.inputs; ++i) {
        x.set(i / o.inputs, i % o.inputs, o.x[i]);
      }
      const PackedMatrix w =
          Pack(o.w, o.outputs, o.inputs, kernel().weights, pool);
      RunKernel(kernel(), x.view(), w, Options(), y.view(), pool);
      for (int64_t i = 0; i < rows * o.outputs; ++i) {
        ASSERT_EQ(Bits(y.at(i / o.outputs, i % o.outputs)), Bits(want[i]));
      }
      EXPECT_TRUE(x.GuardsIntact());
      EXPECT_TRUE(y.GuardsIntact());
    }
  }
}

TEST_P(KernelTest, ZerosGiveExactZeros) {
  Operands o = Random(3, 300, 20);
  o.x.assign(o.x.size(), 0.0f);
  for (float y : Run(o)) EXPECT_EQ(Bits(y), Bits(0.0f));
  o = Random(3, 300, 20);
  o.w.assign(o.w.size(), 0.0f);
  for (float y : Run(o)) EXPECT_EQ(y, 0.0f);
}

TEST_P(KernelTest, InfinitiesAndNaNsReachTheirRowOnly) {
  for (int64_t inputs : {300, 301}) {  // the odd one has a padded last pair
    Operands o = Random(3, inputs, 20);
    for (float& w : o.w) w = std::abs(w) + 0.25f;
    o.x[1 * inputs + inputs - 1] = kInfinity;
    o.x[2 * inputs + 7] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> y = Run(o);
    for (int64_t n = 0; n < o.outputs; ++n) {
      EXPECT_TRUE(std::isfinite(y[n]));
      EXPECT_EQ(y[o.outputs + n], kInfinity);
      EXPECT_TRUE(std::isnan(y[2 * o.outputs + n]));
    }
  }
}

TEST_P(KernelTest, WeightsThatAreNotFiniteReachTheirOutputOnly) {
  Operands o = Random(2, 40, 20);
  for (float& x : o.x) x = std::abs(x) + 0.25f;
  o.w[3 * 40 + 39] = -kInfinity;
  o.w[18 * 40] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> y = Run(o);
  for (int64_t i = 0; i < 2 * 20; ++i) {
    if (i % 20 == 3) {
      EXPECT_EQ(y[i], -kInfinity);
    } else if (i % 20 == 18) {
      EXPECT_TRUE(std::isnan(y[i]));
    } else {
      EXPECT_TRUE(std::isfinite(y[i]));
    }
  }
}

TEST_P(KernelTest, HugeValuesOverflowToInfinityAsTheReferenceDoes) {
  Operands o = Random(2, 64, 16);
  for (size_t i = 0; i < o.x.size(); ++i) o.x[i] = 0x1p+100f;
  for (size_t i = 0; i < o.w.size(); ++i) o.w[i] = i % 3 ? 0x1p+20f : 0x1p+60f;
  const std::vector<float> y = Run(o);
  ExpectEqualBits(y, Reference(o));
  EXPECT_EQ(y[0], kInfinity);
}

TEST_P(KernelTest, TinyValuesAreSummedExactlyOrFlushedByTheInstruction) {
  Operands o = Random(2, 65, 17);
  for (float& x : o.x) x = std::ldexp(x, -100);
  for (float& w : o.w) w = std::ldexp(w, -30);
  const std::vector<float> y = Run(o), want = Reference(o);
  if (kernel().panel == DType::kF32) {
    ExpectEqualBits(y, want);
    return;
  }
  // VDPBF16PS takes subnormal operands and results for zero: each of its steps
  // may lose up to the smallest normal number.
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(y[i], want[i], 65 * std::numeric_limits<float>::min());
  }
}

std::string KernelName(const ::testing::TestParamInfo<size_t>& info) {
  return MatMulKernels()[info.param].name;
}

// integer_kernels_test.cc walks the others.
std::vector<size_t> RowsOfFloatWeights() {
  std::vector<size_t> rows;
  for (size_t i = 0; i < MatMulKernels().size(); ++i) {
    if (!IsInteger(MatMulKernels()[i].weights)) rows.push_back(i);
  }
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Table, KernelTest,
                         ::testing::ValuesIn(RowsOfFloatWeights()), KernelName);

}  // namespace
}  // namespace nibble
