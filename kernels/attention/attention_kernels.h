// The table of attention kernels: what attention.h dispatches to.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_kernels.h"
#include "kernels/cpu.h"

namespace nibble {

struct AttentionKernels {
  const char* name;
  Isa isa;
  // Floats of 64-byte aligned scratch that one running task needs.
  int64_t (*scratch_floats)(int64_t head_dim);
  void (*attend)(const AttentionTask& task, float* scratch);  // f32 and bf16
  Int8AttentionKernels int8;
  // Joins the partial results of blocks [block_begin, block_end) in ascending
  // order and writes the outputs. Null: tasks must not be split.
  void (*join)(const AttentionTask& task, float* scratch);
};

absl::Span<const AttentionKernels> AttentionTable();

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_KERNELS_H_
