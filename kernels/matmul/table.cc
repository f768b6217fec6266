#include "kernels/matmul/table.h"

#include <cstdint>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "kernels/matmul/amx_kernels.h"
#include "kernels/matmul/int8_kernels_hwy.h"
#include "kernels/matmul/kernels_hwy.h"
#include "kernels/matmul/reference.h"

namespace nibble {

absl::Span<const MatMulKernel> MatMulKernels() {
  static const auto& kernels = *[] {
    auto* all = new std::vector<MatMulKernel>;
    for (const auto& part : {ReferenceMatMulKernels(), HighwayMatMulKernels(),
                             Int8MatMulKernels(), AmxMatMulKernels()}) {
      all->insert(all->end(), part.begin(), part.end());
    }
    return all;
  }();
  return kernels;
}

bool KernelAllowed(const MatMulKernel& kernel) {
  return IsaAllowed(kernel.isa) && HighwayTargetAllowed(kernel.highway_target);
}

bool KernelFits(const MatMulKernel& kernel, WeightFormat weights,
                Activations activations) {
  if (kernel.weights != weights) return false;
  if (!IsInteger(weights)) {
    return kernel.panel == DType::kF32 || activations == Activations::kBF16;
  }
  switch (activations) {
    case Activations::kF32:
      return kernel.multiplied_as == WeightFormat::kF32;
    case Activations::kBF16:
      return kernel.multiplied_as == WeightFormat::kBF16;
    case Activations::kInt8:
      return kernel.panel == DType::kI8;
  }
  return false;
}

const MatMulKernel& ChooseKernel(WeightFormat weights, Activations activations,
                                 int64_t rows) {
  const MatMulKernel* best = nullptr;
  for (const MatMulKernel& kernel : MatMulKernels()) {
    if (KernelFits(kernel, weights, activations) && KernelAllowed(kernel) &&
        rows >= kernel.min_rows) {
      best = &kernel;
    }
  }
  CHECK(best != nullptr) << "no product with weights "
                         << WeightFormatName(weights);
  return *best;
}

}  // namespace nibble
