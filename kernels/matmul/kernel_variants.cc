#include "kernels/matmul/kernel_variants.h"

#include <cmath>
#include <cstring>

#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "kernels/matmul/reference.h"
#include "kernels/matmul/run_kernel.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {
namespace {

const MatMulKernel& ReferenceOf(const MatMulKernel& kernel) {
  for (const MatMulKernel& reference : ReferenceMatMulKernels()) {
    if (KernelFits(reference, kernel.weights, ActivationsOf(kernel))) {
      return reference;
    }
  }
  return kernel;
}

std::vector<float> RunVariant(const MatMulKernel& variant,
                              const std::vector<float>& x,
                              const PackedMatrix& w, int threads) {
  ThreadPool pool(threads);
  const int64_t rows = static_cast<int64_t>(x.size()) / w.inputs();
  std::vector<float> y(static_cast<size_t>(rows * w.outputs()));
  MatMulOptions options;
  options.activations = ActivationsOf(variant);
  RunKernel(variant, MatrixView<const float>(x.data(), rows, w.inputs()), w,
            options, MatrixView<float>(y.data(), rows, w.outputs()), pool);
  return y;
}

}  // namespace

std::vector<size_t> VariantsOf(WeightFormat weights) {
  std::vector<size_t> variants;
  for (size_t i = 0; i < MatMulKernels().size(); ++i) {
    if (MatMulKernels()[i].weights == weights) variants.push_back(i);
  }
  return variants;
}

std::string VariantName(const ::testing::TestParamInfo<size_t>& info) {
  return MatMulKernels()[info.param].name;
}

Activations ActivationsOf(const MatMulKernel& kernel) {
  if (kernel.panel == DType::kI8) return Activations::kInt8;
  if (!IsInteger(kernel.weights)) {
    return kernel.panel == DType::kBF16 ? Activations::kBF16
                                        : Activations::kF32;
  }
  return kernel.multiplied_as == WeightFormat::kF32 ? Activations::kF32
                                                    : Activations::kBF16;
}

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
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

void KernelVariantTest::SetUp() {
  // Emulated tiles are never the best choice: they run where asked for.
  if (kernel().isa == Isa::kEmulatedAmx && CpuSupports(Isa::kEmulatedAmx)) {
    ASSERT_TRUE(LimitIsa(Isa::kEmulatedAmx).ok());
  }
  if (!KernelAllowed(kernel())) {
    GTEST_SKIP() << "this machine cannot run " << kernel().name;
  }
}

void KernelVariantTest::TearDown() { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }

const MatMulKernel& KernelVariantTest::kernel() const {
  return MatMulKernels()[GetParam()];
}

std::vector<float> KernelVariantTest::Run(const std::vector<float>& x,
                                          const PackedMatrix& w,
                                          int threads) const {
  return RunVariant(kernel(), x, w, threads);
}

std::vector<float> KernelVariantTest::RunReference(
    const std::vector<float>& x, const PackedMatrix& w) const {
  return RunVariant(ReferenceOf(kernel()), x, w, /*threads=*/1);
}

void KernelVariantTest::ExpectEqualsReference(const std::vector<float>& x,
                                              const PackedMatrix& w) const {
  const std::vector<float> got = Run(x, w);
  const std::vector<float> want = RunReference(x, w);
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

}  // namespace nibble
