// Moves the 32-bit words that packed factors consist of: an f32 each, or a pair
// of bf16.
#ifndef NIBBLE_KERNELS_GEMM_WORDS_H_
#define NIBBLE_KERNELS_GEMM_WORDS_H_

#include <cstdint>

namespace nibble {

// out[j][i] = in[i][j] for i < rows, j < cols. `in` holds words, f32 or pairs;
// strides are in words.
void TransposeWords(const void* in, int64_t in_stride, int64_t rows,
                    int64_t cols, void* out, int64_t out_stride);

// words[j] = bf16 of even[j] in the low half, of odd[j] in the high one, both
// as ToBF16 rounds. `odd` may be null, for zeros.
void PairRows(const float* even, const float* odd, int64_t count,
              uint32_t* words);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_WORDS_H_
