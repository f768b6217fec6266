// Where the bytes of a packed weight matrix lie, and those of packed
// activations. Both sides of a product are cut into the same blocks along K.
//
// Weights: tiles of 16 outputs, one after another; a tile is `steps` rows of 64
// bytes, and one row, a step, is what one vector multiply of 512 bits takes:
//
//   f32   step s: w[0][s] w[1][s] ... w[15][s]              1 k, 4 bytes each
//   bf16  step s: w[0][2s] w[0][2s+1] w[1][2s] ... w[15][2s+1]
//                                                           2 k, 2 bytes each
//
// Outputs beyond the matrix (N padded to 16) and the odd k of bf16 are zero.
//
// Activations: rows in groups that one kernel call takes. Both operands are cut
// into blocks of 256 consecutive k; for each block, each row of the group gives
// 256 values (f32 or bf16), so that a kernel finds row r at a constant distance
// from row 0, and no two rows fight over a cache set:
//
//   group g: block 0: row 0 [256 values], row 1 [256 values], ...
//            block 1: row 0 ...
//
// In the last block only the k of whole steps are set, an odd k padded with 0.
#ifndef NIBBLE_KERNELS_MATMUL_PACKED_LAYOUT_H_
#define NIBBLE_KERNELS_MATMUL_PACKED_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/packed_layout.h"

namespace nibble {

inline constexpr int64_t kTileOutputs = 16;
inline constexpr int64_t kStepBytes = 64;
// The block along K. An output is the sum of its blocks' sums, so this constant
// is part of the results' bits. Two tiles of f32 weights take 32 KiB in it and
// two of bf16 16, which stay in L1 while all groups of rows pass; adding a
// block to the totals costs 1 to 3% of its multiplies.
inline constexpr int64_t kBlockInputs = 256;

static_assert(kTileOutputs * sizeof(float) == kStepBytes);

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Consecutive k in one step: 1 for f32 weights, 2 for bf16.
constexpr int64_t InputsPerStep(WeightFormat weights) {
  return weights == WeightFormat::kF32 ? 1 : 2;
}

constexpr int64_t StepsFor(WeightFormat weights, int64_t inputs) {
  return CeilDiv(inputs, InputsPerStep(weights));
}

constexpr int64_t BlocksFor(int64_t inputs) {
  return CeilDiv(inputs, kBlockInputs);
}

constexpr int64_t TilesFor(int64_t outputs) {
  return CeilDiv(outputs, kTileOutputs);
}

constexpr int64_t TileBytes(WeightFormat weights, int64_t inputs) {
  return StepsFor(weights, inputs) * kStepBytes;
}

// Byte offset of w[output][input].
constexpr int64_t WeightOffset(WeightFormat weights, int64_t inputs,
                               int64_t output, int64_t input) {
  const int64_t per_step = InputsPerStep(weights);
  const int64_t value_bytes = kStepBytes / kTileOutputs / per_step;
  return output / kTileOutputs * TileBytes(weights, inputs) +
         input / per_step * kStepBytes +
         (output % kTileOutputs * per_step + input % per_step) * value_bytes;
}

static_assert(WeightOffset(WeightFormat::kF32, 3, 17, 2) ==
              3 * 64 + 2 * 64 + 4);
static_assert(WeightOffset(WeightFormat::kBF16, 3, 17, 2) == 2 * 64 + 64 + 4);
static_assert(WeightOffset(WeightFormat::kBF16, 3, 1, 1) == 6);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_PACKED_LAYOUT_H_
