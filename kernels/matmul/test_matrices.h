// Inputs and bounds for tests of matrix products.
#ifndef NIBBLE_KERNELS_MATMUL_TEST_MATRICES_H_
#define NIBBLE_KERNELS_MATMUL_TEST_MATRICES_H_

#include <cstdint>
#include <vector>

#include "kernels/matmul/kernel.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "tensor/packed_layout.h"

namespace nibble {

// A matrix whose rows lie `stride` apart, `offset` floats into the allocation
// (to break alignment), with every float outside the rows set to a guard value.
class GuardedMatrix {
 public:
  GuardedMatrix(int64_t rows, int64_t cols, int64_t stride, int64_t offset);

  MatrixView<float> view();
  float at(int64_t row, int64_t col) const;
  void set(int64_t row, int64_t col, float value);
  // True if nothing outside the rows has changed.
  bool GuardsIntact() const;

 private:
  int64_t Index(int64_t row, int64_t col) const;

  int64_t rows_, cols_, stride_, offset_;
  std::vector<float> values_;
};

// `count` values from a normal distribution, the same for the same seed.
std::vector<float> RandomValues(int64_t count, uint32_t seed);

// values, each rounded to bf16.
std::vector<float> RoundedToBF16(const std::vector<float>& values);

// Weights [outputs, inputs] packed in `format`.
PackedMatrix Pack(const std::vector<float>& weights, int64_t outputs,
                  int64_t inputs, WeightFormat format, ThreadPool& pool);

// Integer weights as they are before packing.
struct IntegerMatrix {
  PackedLayout layout;
  std::vector<uint8_t> codes;   // [outputs, inputs]
  std::vector<float> scales;    // [outputs, groups]
  std::vector<uint8_t> zeros;   // [outputs, groups] or empty
  std::vector<float> minimums;  // [outputs, groups] or empty

  // scale * (code - zero), or scale * code + minimum.
  float Weight(int64_t output, int64_t input) const;
  PackedMatrix Pack() const;
};

// A kInt4 layout with minimums.
PackedLayout LayoutWithMinimums(int64_t outputs, int64_t inputs,
                                int64_t group_size, bool wide_scales = false);

// Random codes over their whole range, scales of both signs, zero points or
// minimums of both signs.
IntegerMatrix RandomIntegers(const PackedLayout& layout, uint32_t seed);

// gamma(256 + K / 256) of matmul.h: the bound on the relative error of a sum.
double SumErrorFactor(int64_t inputs);

// False for the variants that sum bf16 tiles: their sums equal the reference's
// within rounding only.
bool SumsInReferenceOrder(const MatMulKernel& kernel);

// How far a sum of bf16 tiles may lie from the reference's, given
// sum_k |x[k] w[k]|. Either may take subnormal products for zero.
double TileSumTolerance(int64_t inputs, double magnitude);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_TEST_MATRICES_H_
