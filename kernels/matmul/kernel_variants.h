// What tests of the table's variants have in common.
//
//   class MyTest : public KernelVariantTest {};
//   TEST_P(MyTest, EqualsTheReference) {
//     ExpectEqualsReference(x, packed_weights);
//   }
//   INSTANTIATE_TEST_SUITE_P(Table, MyTest,
//                            ::testing::ValuesIn(VariantsOf(kInt4)),
//                            VariantName);
#ifndef NIBBLE_KERNELS_MATMUL_KERNEL_VARIANTS_H_
#define NIBBLE_KERNELS_MATMUL_KERNEL_VARIANTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul.h"
#include "tensor/packed_layout.h"

namespace nibble {

// Of the table, by index: those that multiply such weights.
std::vector<size_t> VariantsOf(WeightFormat weights);
std::string VariantName(const ::testing::TestParamInfo<size_t>& info);

// The activations that a variant is for.
Activations ActivationsOf(const MatMulKernel& kernel);

uint32_t Bits(float value);

// Equal bits, or both NaN.
void ExpectEqualBits(const std::vector<float>& got,
                     const std::vector<float>& want);

// The parameter is an index into the table. A variant that this machine cannot
// run is skipped.
class KernelVariantTest : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override;
  void TearDown() override;

  const MatMulKernel& kernel() const;
  bool int8_activations() const { return kernel().panel == DType::kI8; }

  // y of x, [rows, inputs].
  std::vector<float> Run(const std::vector<float>& x, const PackedMatrix& w,
                         int threads = 1) const;

  // Bit for bit, or within rounding where the sums have another order.
  void ExpectEqualsReference(const std::vector<float>& x,
                             const PackedMatrix& w) const;

  // The scalar variant for the same weights and activations.
  std::vector<float> RunReference(const std::vector<float>& x,
                                  const PackedMatrix& w) const;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_KERNEL_VARIANTS_H_
