#include "kernels/matmul/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/matmul/packed_layout.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

float Weight(const Product& p, WeightFormat dtype, int64_t output,
             int64_t input) {
  const std::byte* at =
      p.weights + WeightOffset(dtype, p.inputs, output, input);
  if (dtype == WeightFormat::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  BF16 value;
  std::memcpy(&value, at, sizeof(value));
  return ToFloat(value);
}

// The sum of one block of K: inputs [begin, end).
template <WeightFormat kWeights>
float BlockSum(const Product& p, const float* x, int64_t output, int64_t begin,
               int64_t end) {
  float sum = 0;
  if constexpr (kWeights == WeightFormat::kF32) {
    for (int64_t k = begin; k < end; ++k) {
      sum = std::fma(Weight(p, kWeights, output, k), x[k], sum);
    }
  } else {
    for (int64_t k = begin; k < end; k += 2) {
      if (k + 1 < end) {
        sum = std::fma(Weight(p, kWeights, output, k + 1), x[k + 1], sum);
      }
      sum = std::fma(Weight(p, kWeights, output, k), x[k], sum);
    }
  }
  return sum;
}

// REQUIRES: groups of one row, so that a row of the panel is contiguous.
template <WeightFormat kWeights>
void MultiplyReference(const Product& p, int64_t first_tile, int64_t end_tile,
                       float* /*totals*/) {
  const int64_t blocks = BlocksFor(p.inputs);
  const int64_t end_output = std::min(p.outputs, end_tile * kTileOutputs);
  for (int64_t row = 0; row < p.groups.rows; ++row) {
    const float* x =
        reinterpret_cast<const float*>(p.panel) + row * blocks * kBlockInputs;
    for (int64_t n = first_tile * kTileOutputs; n < end_output; ++n) {
      float total = 0;
      for (int64_t k = 0; k < p.inputs; k += kBlockInputs) {
        const int64_t end = std::min(p.inputs, k + kBlockInputs);
        total += BlockSum<kWeights>(p, x, n, k, end);
      }
      if (p.bias != nullptr) total += p.bias[n];
      float& y = p.y[row * p.y_stride + n];
      y = p.accumulate ? total + y : total;
    }
  }
}

constexpr MatMulKernel kKernels[] = {
    {"f32_reference", WeightFormat::kF32, DType::kF32, Isa::kScalar, 0, 1,
     &MultiplyReference<WeightFormat::kF32>},
    {"bf16_reference", WeightFormat::kBF16, DType::kF32, Isa::kScalar, 0, 1,
     &MultiplyReference<WeightFormat::kBF16>},
};

}  // namespace

absl::Span<const MatMulKernel> ReferenceMatMulKernels() { return kKernels; }

}  // namespace nibble
