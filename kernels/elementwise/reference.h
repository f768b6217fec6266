// Scalar references of the elementwise operations: the plain formulas, computed
// in double and rounded once. They are the rows that --isa=scalar selects, and
// what the tests compare every other row with.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_REFERENCE_H_
#define NIBBLE_KERNELS_ELEMENTWISE_REFERENCE_H_

#include <cstdint>

#include "kernels/elementwise/activation_type.h"

namespace nibble {
namespace reference {

void RmsNorm(const float* x, const float* weight, int64_t n, float eps,
             float* out);
void LayerNorm(const float* x, const float* weight, const float* bias,
               int64_t n, float eps, float* out);

// One head; cos, sin: [pairs].
void RopeHalf(const float* cos, const float* sin, int64_t pairs, float* head);
void RopeInterleaved(const float* cos, const float* sin, int64_t pairs,
                     float* head);

double Act(Activation activation, double x);
template <Activation kActivation>
void Activate(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(Act(kActivation, x[i]));
  }
}
template <Activation kActivation>
void GatedActivate(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(Act(kActivation, gate[i]) * up[i]);
  }
}

void Softmax(float* x, int64_t n);
double LogSumExp(const float* x, int64_t n);

// The largest value that is not NaN; -infinity if there is none.
float Max(const float* x, int64_t n);
// The first i in [begin, n) with x[i] == value, or > value; n if none.
int64_t FindEqual(const float* x, int64_t begin, int64_t n, float value);
int64_t FindAbove(const float* x, int64_t begin, int64_t n, float value);

void Add(const float* y, int64_t n, float* x);
void Multiply(const float* y, int64_t n, float* x);
void Scale(float factor, int64_t n, float* x);
void AddScaled(float factor, const float* y, int64_t n, float* x);

}  // namespace reference
}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_REFERENCE_H_
