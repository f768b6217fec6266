// Where packed activations lie, and how both sides of a product are cut along
// K. tensor/packed_layout.h draws the weights.
//
// f32 and bf16 panels: rows in groups that one kernel call takes. Both operands
// are cut into blocks of 256 consecutive k; for each block, each row of the
// group gives 256 values, so that a kernel finds row r at a constant distance
// from row 0, and no two rows fight over a cache set:
//
//   group g: block 0: row 0 [256 values], row 1 [256 values], ...
//            block 1: row 0 ...
//
// In the last block only the k of whole steps are set, an odd k padded with 0.
//
// int8 panels: the same with blocks of 64 values (one cache line, one row of an
// AMX tile), all of them set, with 0 beyond the inputs:
//
//   group g: block 0: row 0 [64 bytes], row 1 [64 bytes], ...
//            block 1: row 0 ...
#ifndef NIBBLE_KERNELS_MATMUL_PANEL_LAYOUT_H_
#define NIBBLE_KERNELS_MATMUL_PANEL_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/packed_layout.h"

namespace nibble {

inline constexpr int64_t kTileOutputs = kPackedTileOutputs;
inline constexpr int64_t kStepBytes = kPackedLineBytes;
// Outputs in a record of integer weights: two tiles.
inline constexpr int64_t kRecordOutputs = 2 * kTileOutputs;
// The block along K of float products. An output is the sum of its blocks'
// sums, so this constant is part of the results' bits. Two tiles of f32 weights
// take 32 KiB in it and two of bf16 16, which stay in L1 while all groups of
// rows pass; adding a block to the totals costs 1 to 3% of its multiplies.
inline constexpr int64_t kBlockInputs = 256;
// The block along K of int8 panels.
inline constexpr int64_t kInt8BlockInputs = 64;

static_assert(kTileOutputs * sizeof(float) == kStepBytes);

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t BlocksFor(int64_t inputs) {
  return CeilDiv(inputs, kBlockInputs);
}

constexpr int64_t Int8BlocksFor(int64_t inputs) {
  return CeilDiv(inputs, kInt8BlockInputs);
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_PANEL_LAYOUT_H_
