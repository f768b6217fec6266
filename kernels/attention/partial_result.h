// The size of what a task leaves behind per key block: see AttentionTask.
#ifndef NIBBLE_KERNELS_ATTENTION_PARTIAL_RESULT_H_
#define NIBBLE_KERNELS_ATTENTION_PARTIAL_RESULT_H_

#include <cstdint>

#include "kernels/attention/attention_task.h"

namespace nibble {

// Floats between the head_dim-long rows of a scratch or partial matrix.
inline int64_t PaddedDim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// A partial result: maxima [kMaxRows], sums [kMaxRows], then weighted values
// [kMaxRows, PaddedDim(head_dim)]. A sum of 0 says that the row sees no key of
// the block and that its values are not set.
inline int64_t PartialFloats(int64_t head_dim) {
  return kMaxRows * (2 + PaddedDim(head_dim));
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_PARTIAL_RESULT_H_
