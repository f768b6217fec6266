// Attention over an int8 cache in plain C++: the arithmetic of
// int8_arithmetic.h one element at a time, with the bits that every ISA gives.
#ifndef NIBBLE_KERNELS_ATTENTION_REFERENCE_INT8_H_
#define NIBBLE_KERNELS_ATTENTION_REFERENCE_INT8_H_

#include "kernels/attention/attention_task.h"

namespace nibble {
namespace reference {

// Ignores the task's blocks and `scratch`: it computes all keys of its rows.
// REQUIRES: task.partials is null.
void AttendInt8(const AttentionTask& task, float* scratch);

}  // namespace reference
}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_REFERENCE_INT8_H_
