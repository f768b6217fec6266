// How a matrix product is computed and what is added to it.
#ifndef NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_
#define NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_

namespace nibble {

// What the activations are multiplied as. kBF16 rounds each one to bf16 once
// (nearest, ties to even); products and sums stay f32. With bf16 weights it is
// up to twice as fast at many rows where the processor has AVX512_BF16.
enum class Activations { kF32, kBF16 };

struct MatMulOptions {
  const float* bias = nullptr;  // [outputs], or none
  bool accumulate = false;      // y += product + bias
  Activations activations = Activations::kF32;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_
