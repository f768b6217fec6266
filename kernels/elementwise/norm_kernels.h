// The table of normalisation kernels: what norm.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_NORM_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_NORM_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

struct NormKernels {
  const char* name;
  Isa isa;
  // All of size n >= 1; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps,
                   float* out);
  // bias may be null.
  void (*layer_norm)(const float* x, const float* weight, const float* bias,
                     int64_t n, float eps, float* out);
};

absl::Span<const NormKernels> NormTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_NORM_KERNELS_H_
