// How a matrix product is computed and what is done with its result.
#ifndef NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_
#define NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_

#include <cstdint>
#include <optional>

#include "kernels/elementwise/activation_type.h"

namespace nibble {

// What the activations are multiplied as.
//
//   kF32   as they are.
//   kBF16  each rounded to bf16 once (nearest, ties to even); products and sums
//          stay f32. Where the processor has AVX512_BF16 and the weights are
//          not f32, up to twice as fast at many rows. Integer weights are
//          rounded to bf16 as well.
//   kInt8  each row, in groups as long as the weights', rounded to 8 bits with
//          a scale per group; exact integer sums within a group. For integer
//          weights; with float ones the same as kF32.
enum class Activations { kF32, kBF16, kInt8 };

struct MatMulOptions {
  const float* bias = nullptr;  // [outputs], or none
  bool accumulate = false;      // y += product + bias
  Activations activations = Activations::kF32;
  // [inputs], a permutation, or none: column j of the weights belongs to
  // x[:, input_order[j]]. Applied once per product, to x.
  const int32_t* input_order = nullptr;
  // If set, the weights are two matrices of n outputs, gate above up, and
  // y [rows, n] = act(gate) * up, each with its part of the bias. Not together
  // with `accumulate`.
  std::optional<Activation> gated;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_MATMUL_OPTIONS_H_
