// Scalar references of the gradients: the formulas of gradient.h computed in
// double and rounded once. They are the row that --isa=scalar selects, and what
// the tests compare every other row with.
#ifndef NIBBLE_KERNELS_GRADIENT_REFERENCE_H_
#define NIBBLE_KERNELS_GRADIENT_REFERENCE_H_

#include <cstdint>

#include "kernels/elementwise/activation_type.h"
#include "kernels/gradient/gradient_kernels.h"

namespace nibble {
namespace reference {

struct ValueAndSlope {
  double value;
  double slope;
};

// An activation and its derivative.
ValueAndSlope ActSlope(Activation activation, double x);

template <Activation kActivation>
void ActivateGradient(const float* x, const float* dy, int64_t n, float* dx) {
  for (int64_t i = 0; i < n; ++i) {
    dx[i] = static_cast<float>(dy[i] * ActSlope(kActivation, x[i]).slope);
  }
}
template <Activation kActivation>
void GatedActivateGradient(const float* gate, const float* up, const float* dy,
                           int64_t n, float* d_gate, float* d_up) {
  for (int64_t i = 0; i < n; ++i) {
    const ValueAndSlope act = ActSlope(kActivation, gate[i]);
    d_gate[i] = static_cast<float>(act.slope * dy[i] * up[i]);
    d_up[i] = static_cast<float>(act.value * dy[i]);
  }
}

void NormGradient(const NormGradientRow& row, const float* base, float* dx);
void NormWeightGradient(const NormGradientRow& row, float* weight);
void AttentionWeights(float scale, float slope, int64_t n, float* scores);
void ScoreGradient(const float* weights, float scale, int64_t n,
                   float* d_weights);

}  // namespace reference
}  // namespace nibble

#endif  // NIBBLE_KERNELS_GRADIENT_REFERENCE_H_
