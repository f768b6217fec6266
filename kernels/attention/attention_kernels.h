// The table of attention kernels: what attention.h dispatches to.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/attention/attention_task.h"
#include "kernels/cpu.h"

namespace nibble {

// Floats between the head_dim-long rows of a scratch or partial matrix.
inline int64_t PaddedDim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// A partial result: maxima [kMaxRows], sums [kMaxRows], then weighted values
// [kMaxRows, PaddedDim(head_dim)]. A sum of 0 says that the row sees no key of
// the block and that its values are not set.
inline int64_t PartialFloats(int64_t head_dim) {
  return kMaxRows * (2 + PaddedDim(head_dim));
}

struct AttentionKernels {
  const char* name;
  Isa isa;
  // Floats of 64-byte aligned scratch that one running task needs.
  int64_t (*scratch_floats)(int64_t head_dim);
  void (*attend)(const AttentionTask& task, float* scratch);
  // Joins the partial results of blocks [block_begin, block_end) in ascending
  // order and writes the outputs. Null: tasks must not be split.
  void (*join)(const AttentionTask& task, float* scratch);
};

absl::Span<const AttentionKernels> AttentionTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_
