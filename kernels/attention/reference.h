// Scalar reference of attention: the formula of attention.h in double, one
// query at a time, rounded once. It is the row that --isa=scalar selects, and
// what the tests compare every other row with.
#ifndef NIBBLE_KERNELS_ATTENTION_REFERENCE_H_
#define NIBBLE_KERNELS_ATTENTION_REFERENCE_H_

#include <cstdint>

#include "kernels/attention/attention_task.h"

namespace nibble {
namespace reference {

int64_t AttendScratchFloats(int64_t head_dim);
// REQUIRES: the task is not split.
void Attend(const AttentionTask& task, float* scratch);

}  // namespace reference
}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_REFERENCE_H_
