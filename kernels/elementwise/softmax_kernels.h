// The table of softmax kernels: what softmax.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

struct SoftmaxKernels {
  const char* name;
  Isa isa;
  void (*softmax)(float* x, int64_t n);  // n >= 1
  double (*log_sum_exp)(const float* x, int64_t n);
};

absl::Span<const SoftmaxKernels> SoftmaxTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_SOFTMAX_KERNELS_H_
