// What follows a matrix product: bias, the old values, the gate.
#ifndef NIBBLE_KERNELS_MATMUL_EPILOGUE_H_
#define NIBBLE_KERNELS_MATMUL_EPILOGUE_H_

#include <cstdint>

namespace nibble {

// y[i] = sums[i] (+ bias[i]) (+ old y[i]), in this order, for i < count. `bias`
// may be null; y may be `sums`.
void StoreSums(const float* sums, const float* bias, bool accumulate,
               int64_t count, float* y);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_EPILOGUE_H_
