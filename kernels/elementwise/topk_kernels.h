// The table of search kernels: what topk.h dispatches to.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_TOPK_KERNELS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_TOPK_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu.h"

namespace nibble {

struct SearchKernels {
  const char* name;
  Isa isa;
  // The largest value that is not NaN; -infinity if there is none.
  float (*max)(const float* x, int64_t n);
  // The first i in [begin, n) with x[i] == value, or > value; n if none.
  int64_t (*find_equal)(const float* x, int64_t begin, int64_t n, float value);
  int64_t (*find_above)(const float* x, int64_t begin, int64_t n, float value);
};

absl::Span<const SearchKernels> SearchTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_TOPK_KERNELS_H_
