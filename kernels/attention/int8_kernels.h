// Attention tasks over an int8 cache, one function per ISA: a part of the rows
// in attention_kernels.h. int8_arithmetic.h says what they compute.
#ifndef NIBBLE_KERNELS_ATTENTION_INT8_KERNELS_H_
#define NIBBLE_KERNELS_ATTENTION_INT8_KERNELS_H_

#include <cstdint>

#include "kernels/attention/attention_task.h"
#include "kernels/cpu.h"

namespace nibble {

struct Int8AttentionKernels {
  // Floats of 64-byte aligned scratch that one running task needs.
  int64_t (*scratch_floats)(int64_t head_dim);
  void (*attend)(const AttentionTask& task, float* scratch);
};

// REQUIRES: kScalar, kAvx2, kAvxVnni, kAvx512 or kAvx512Vnni, and the build
// holds the ISA.
Int8AttentionKernels Int8AttentionRow(Isa isa);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_KERNELS_H_
