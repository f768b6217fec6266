// The table of activation kernels: what activation.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

// Accuracy of the vector rows against double, x in [-30, 30], in multiples of
// 2^-24 of |result| where that is above 1e-30 (measured by
// activation_test, which fails above these figures):
//
// | activation | error | what it is made of                                  |
// |------------|-------|-----------------------------------------------------|
// | kSilu      |     5 | exp (2 ulp), addition, division                     |
// | kGelu      |     9 | exp, polynomial of degree 8, reciprocal             |
// | kGeluTanh  |   130 | rounding of 2u up to 60 is multiplied by the exp     |
// | kQuickGelu |    60 | rounding of 1.702 x likewise                        |
//
// The last two are large relative errors of tiny results: for x > -3 they stay
// below 20.
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
