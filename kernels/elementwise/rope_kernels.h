// The table of rotary embedding kernels: what rope.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ROPE_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ROPE_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

struct RopeKernels {
  const char* name;
  Isa isa;
  // Rotates the first 2 * pairs elements of a head. cos, sin: [pairs].
  void (*half)(const float* cos, const float* sin, int64_t pairs, float* head);
  void (*interleaved)(const float* cos, const float* sin, int64_t pairs,
                      float* head);
};

absl::Span<const RopeKernels> RopeKernelTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ROPE_KERNELS_H_
