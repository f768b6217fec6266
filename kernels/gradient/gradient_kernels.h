// The table of gradient kernels: what gradient.h dispatches to. The formulas
// stand there.
#ifndef NIBBLE_KERNELS_GRADIENT_GRADIENT_KERNELS_H_
#define NIBBLE_KERNELS_GRADIENT_GRADIENT_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

// One row of a norm's gradient; all of size n >= 1.
struct NormGradientRow {
  const float* x;
  const float* weight;  // of the norm; not read for the weight's own gradient
  const float* dy;
  int64_t n;
  float eps;
  bool centred;  // LayerNorm
};

struct GradientKernels {
  const char* name;
  Isa isa;
  // By Activation. dx may be dy.
  void (*activate[4])(const float* x, const float* dy, int64_t n, float* dx);
  void (*gated[4])(const float* gate, const float* up, const float* dy,
                   int64_t n, float* d_gate, float* d_up);
  void (*norm)(const NormGradientRow& row, const float* base, float* dx);
  void (*norm_weight)(const NormGradientRow& row, float* weight);
  void (*attention_weights)(float scale, float slope, int64_t n, float* scores);
  void (*score)(const float* weights, float scale, int64_t n, float* d_weights);
};

absl::Span<const GradientKernels> GradientTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GRADIENT_GRADIENT_KERNELS_H_
