// The table of activation kernels: what activation.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

// Accuracy of the vector rows against double, in multiples of 2^-24 of
// |result|, over x in [-30, 30] as far as |result| > 1e-30, as activation_test
// measures it, and the bound that the test holds them to:
//
// | activation | measured | bound | the bound is made of                     |
// |------------|----------|-------|------------------------------------------|
// | kSilu      |      2.8 |     5 | exp (2 ulp), addition, division          |
// | kGelu      |      6.8 |     9 | exp, polynomial, reciprocal, 5 products  |
// | kGeluTanh  |      183 |   280 | 4 roundings of 2u <= 70, which exp takes |
// | kQuickGelu |       44 |   102 | 2 roundings of 1.702 x <= 51, likewise   |
//
// The last two are relative errors of tiny results: within [-3, 3] no
// activation exceeds 20.
struct ActivationKernels {
  const char* name;
  Isa isa;
  // Indexed by Activation. x = act(x).
  void (*activate[4])(float* x, int64_t n);
  // out = act(gate) * up; out may be gate or up.
  void (*gated[4])(const float* gate, const float* up, int64_t n, float* out);
};

absl::Span<const ActivationKernels> ActivationTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_KERNELS_H_
