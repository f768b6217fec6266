// The table of vector arithmetic kernels: what vector_ops.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_VECTOR_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_VECTOR_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

struct VectorKernels {
  const char* name;
  Isa isa;
  void (*add)(const float* y, int64_t n, float* x);       // x += y
  void (*multiply)(const float* y, int64_t n, float* x);  // x *= y
  void (*scale)(float factor, int64_t n, float* x);       // x *= factor
  // x += factor * y, fused.
  void (*add_scaled)(float factor, const float* y, int64_t n, float* x);
};

absl::Span<const VectorKernels> VectorTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_VECTOR_KERNELS_H_
