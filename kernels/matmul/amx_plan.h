// How the AMX products use the tiles, and how they cut a matrix along K.
#ifndef NIBBLE_KERNELS_MATMUL_AMX_PLAN_H_
#define NIBBLE_KERNELS_MATMUL_AMX_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/tile_shapes.h"
#include "tensor/packed_layout.h"

namespace nibble {

// The tiles' numbers: 2 x 2 tiles of sums, [rows][outputs], two of activations
// and two of weights.
enum : int {
  kSum00,
  kSum01,
  kSum10,
  kSum11,
  kRows0,
  kRows1,
  kWeights0,
  kWeights1
};

// Products of int8 tiles. A step is what one multiply takes: 64 inputs, a full
// tile, where groups are whole steps, else 32, half of one. K passes in blocks
// of whole groups: a block of a record is decoded once, then meets all rows.
struct Int8TilePlan {
  // A block's decoded weights take 16 KiB, a third of L1: they and the rows'
  // activations (another 16 KiB per 32 rows) are in it together. Longer groups
  // are a block each, because their integer sums cannot be parted; they are
  // read from L2.
  static constexpr int64_t kBlockInputs = 512;

  explicit Int8TilePlan(const PackedLayout& layout)
      : step(layout.group_size % 64 == 0 || layout.groups() == 1 ? 64 : 32),
        groups_per_block(
            std::max<int64_t>(1, kBlockInputs / layout.group_size)),
        steps_per_group(CeilDiv(layout.group_size, step)),
        group_bytes(steps_per_group * step * kRecordOutputs) {}

  int64_t step;
  int64_t groups_per_block;
  int64_t steps_per_group;
  int64_t group_bytes;  // of a decoded group
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_AMX_PLAN_H_
