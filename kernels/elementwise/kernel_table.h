// Choosing a row from an operation's table of variants.
//
//   const NormKernels& kernels = SelectKernels(NormTable());
//   kernels.rms_norm(...);
//
// A row is any struct with `name` and `isa`. Rows stand in ascending order of
// ISA, and the first needs none.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TABLE_H_
#define NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TABLE_H_

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

// The last row that the active ISA allows. kScalar selects the reference.
template <class Row>
const Row& SelectKernels(absl::Span<const Row> table) {
  size_t best = 0;
  if (ActiveIsa() == Isa::kScalar) return table[best];
  for (size_t i = 1; i < table.size(); ++i) {
    if (IsaAllowed(table[i].isa)) best = i;
  }
  return table[best];
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_KERNEL_TABLE_H_
