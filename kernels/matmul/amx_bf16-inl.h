// The product of bf16 activations with weights as bf16 on AMX tiles: a template
// over the tile policy (tile_shapes.h). Integer weights are decoded to bf16, a
// block of K of a record at a time, bf16 ones are multiplied where they lie:
// sixteen steps of a packed tile are a tile of 32 inputs x 16 outputs.
//
// The sums are floats and stay in tiles through a block of K; between blocks
// they lie in the totals, which tiles load and store as they are. An output is
// summed in one order, whatever the number of rows: TDPBF16PS sums the 16 even
// and the 16 odd k of a tile apart, adds the two, and adds that to the sum.
#if defined(NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_
#undef NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/matmul/amx_plan.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "kernels/matmul/tile_shapes.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// What one multiply takes of K, and the bytes of it in a row of activations.
inline constexpr int64_t kBF16StepInputs = 32;
inline constexpr int64_t kBF16RowStride = kBlockInputs * 2;

// One block of K: two tiles of outputs and a pair of groups of rows. Steps of
// less than 32 inputs are in copies, padded with zeros, for what lies behind
// the last input of either operand may be anything.
struct BF16BlockProduct {
  int64_t full_steps;
  bool has_tail;
  const std::byte* weights[2];       // [full_steps][kTileBytes]
  const std::byte* weights_tail[2];  // [kTileBytes]
  const std::byte* rows[2];          // [rows][kBF16RowStride]
  const std::byte* rows_tail[2];     // [rows][kTileRowBytes]
  float* totals[2];                  // of a group of rows: [rows][stride]
  int64_t stride;
  bool first;  // the sums start at 0
};

template <class Tiles, bool kTwoRows, bool kTwoTiles>
HWY_INLINE void MultiplyStep(Tiles& tiles, const std::byte* const* rows,
                             int64_t row_stride,
                             const std::byte* const* weights, int64_t offset) {
  tiles.template Load<kRows0>(rows[0], row_stride);
  tiles.template Load<kWeights0>(weights[0] + offset, kTileRowBytes);
  tiles.template DotBF16<kSum00, kRows0, kWeights0>();
  if (kTwoTiles) {
    tiles.template Load<kWeights1>(weights[1] + offset, kTileRowBytes);
    tiles.template DotBF16<kSum01, kRows0, kWeights1>();
  }
  if (kTwoRows) {
    tiles.template Load<kRows1>(rows[1], row_stride);
    tiles.template DotBF16<kSum10, kRows1, kWeights0>();
    if (kTwoTiles) tiles.template DotBF16<kSum11, kRows1, kWeights1>();
  }
}

// Calls `visit` with each tile of sums in use and where its totals lie.
template <bool kTwoRows, bool kTwoTiles, class Visit>
HWY_INLINE void ForEachSum(float* const* totals, const Visit& visit) {
  visit(std::integral_constant<int, kSum00>(), totals[0]);
  if constexpr (kTwoTiles) {
    visit(std::integral_constant<int, kSum01>(), totals[0] + kTileOutputs);
  }
  if constexpr (kTwoRows) {
    visit(std::integral_constant<int, kSum10>(), totals[1]);
  }
  if constexpr (kTwoRows && kTwoTiles) {
    visit(std::integral_constant<int, kSum11>(), totals[1] + kTileOutputs);
  }
}

template <class Tiles, bool kTwoRows, bool kTwoTiles>
void MultiplyBlockBF16(const BF16BlockProduct& p, Tiles& tiles) {
  const int64_t stride = p.stride * static_cast<int64_t>(sizeof(float));
  ForEachSum<kTwoRows, kTwoTiles>(p.totals, [&](auto tile, float* totals) {
    if (p.first) {
      tiles.template Zero<decltype(tile)::value>();
    } else {
      tiles.template Load<decltype(tile)::value>(totals, stride);
    }
  });
  for (int64_t s = 0; s < p.full_steps; ++s) {
    const std::byte* rows[2] = {p.rows[0] + s * kTileRowBytes,
                                p.rows[1] + s * kTileRowBytes};
    MultiplyStep<Tiles, kTwoRows, kTwoTiles>(tiles, rows, kBF16RowStride,
                                             p.weights, s * kTileBytes);
  }
  if (p.has_tail) {
    MultiplyStep<Tiles, kTwoRows, kTwoTiles>(tiles, p.rows_tail, kTileRowBytes,
                                             p.weights_tail, 0);
  }
  ForEachSum<kTwoRows, kTwoTiles>(p.totals, [&](auto tile, float* totals) {
    tiles.template Store<decltype(tile)::value>(totals, stride);
  });
}

// Scratch of a thread: a decoded block, the tails of the weights' two tiles,
// then those of all rows.
inline constexpr int64_t kDecodedTileBytes = kBlockInputs / 2 * kStepBytes;

inline int64_t BF16ScratchBytes(const PackedLayout& /*layout*/, int64_t rows) {
  return 2 * kDecodedTileBytes + 2 * kTileBytes + rows * kTileRowBytes;
}

// A product on its way through the blocks of K.
template <class Tiles>
class BF16Product {
 public:
  BF16Product(const Product& product, std::byte* scratch)
      : product_(product),
        layout_(*product.layout),
        groups_(product.panel.groups),
        blocks_(BlocksFor(layout_.inputs)),
        decoded_(scratch),
        weights_tail_(decoded_ + 2 * kDecodedTileBytes),
        rows_tail_(weights_tail_ + 2 * kTileBytes),
        tiles_(ShapesOf(0)) {}

  // Outputs of `tiles` tiles (1 or 2) from record `record` on, in one block.
  void Multiply(int64_t block, int64_t record, int tiles, Totals totals) {
    BF16BlockProduct p = {};
    const int64_t inputs =
        std::min(kBlockInputs, layout_.inputs - block * kBlockInputs);
    p.full_steps = inputs / kBF16StepInputs;
    p.has_tail = inputs % kBF16StepInputs != 0;
    p.stride = totals.stride;
    p.first = block == 0;
    SetWeights(block, record, tiles, inputs, p);
    for (int64_t g = 0; g < groups_.count; g += 2) {
      for (int i = 0; i < 2 && g + i < groups_.count; ++i) {
        const int64_t begin = groups_.Begin(g + i);
        p.rows[i] = RowsOf(g + i, block);
        p.rows_tail[i] = rows_tail_ + begin * kTileRowBytes;
        p.totals[i] = totals.data + begin * totals.stride;
      }
      tiles_.Configure(ShapesOf(g));
      const bool two_rows = g + 1 < groups_.count;
      const auto multiply =
          two_rows ? (tiles == 2 ? &MultiplyBlockBF16<Tiles, true, true>
                                 : &MultiplyBlockBF16<Tiles, true, false>)
                   : (tiles == 2 ? &MultiplyBlockBF16<Tiles, false, true>
                                 : &MultiplyBlockBF16<Tiles, false, false>);
      multiply(p, tiles_.get());
    }
  }

  // Copies the last inputs of all rows, less than a step, if there are such.
  void PadRows() {
    const int64_t block = blocks_ - 1;
    const int64_t inputs = layout_.inputs - block * kBlockInputs;
    const int64_t tail = inputs % kBF16StepInputs;
    if (tail == 0) return;
    const int64_t bytes = CeilDiv(tail, 2) * 4;
    for (int64_t g = 0; g < groups_.count; ++g) {
      const std::byte* rows = RowsOf(g, block) + (inputs - tail) * 2;
      for (int64_t r = 0; r < groups_.Size(g); ++r) {
        std::byte* out = rows_tail_ + (groups_.Begin(g) + r) * kTileRowBytes;
        std::memcpy(out, rows + r * kBF16RowStride, bytes);
        std::memset(out + bytes, 0, kTileRowBytes - bytes);
      }
    }
  }

 private:
  TileShapes ShapesOf(int64_t group) const {
    TileShapes shapes;
    shapes.Set(kWeights0, kTileMaxRows, kTileRowBytes);
    shapes.Set(kWeights1, kTileMaxRows, kTileRowBytes);
    for (int i = 0; i < 2 && group + i < groups_.count; ++i) {
      const int64_t rows = groups_.Size(group + i);
      shapes.Set(kSum00 + 2 * i, rows, kTileRowBytes);
      shapes.Set(kSum01 + 2 * i, rows, kTileRowBytes);
      shapes.Set(kRows0 + i, rows, kTileRowBytes);
    }
    return shapes;
  }

  const std::byte* RowsOf(int64_t group, int64_t block) const {
    return product_.panel.values +
           (groups_.Begin(group) * blocks_ + block * groups_.Size(group)) *
               kBF16RowStride;
  }

  // Decodes the weights of a block or finds them, and pads the last step.
  void SetWeights(int64_t block, int64_t record, int tiles, int64_t inputs,
                  BF16BlockProduct& p) {
    const std::byte* bytes = product_.weights + record * layout_.record_bytes();
    const bool decoded = IsInteger(layout_.format);
    if (decoded) DecodeBlock<false>(layout_, bytes, block, decoded_);
    const int64_t steps = CeilDiv(inputs, 2);
    const int64_t tail_steps = steps - p.full_steps * kTileMaxRows;
    for (int t = 0; t < tiles; ++t) {
      p.weights[t] = decoded ? decoded_ + t * kDecodedTileBytes
                             : bytes + t * layout_.record_bytes() +
                                   block * kDecodedTileBytes;
      std::byte* tail = weights_tail_ + t * kTileBytes;
      p.weights_tail[t] = tail;
      if (!p.has_tail) continue;
      std::memcpy(tail, p.weights[t] + p.full_steps * kTileBytes,
                  tail_steps * kStepBytes);
      std::memset(tail + tail_steps * kStepBytes, 0,
                  kTileBytes - tail_steps * kStepBytes);
    }
  }

  const Product& product_;
  const PackedLayout& layout_;
  const RowGroups& groups_;
  const int64_t blocks_;
  std::byte* decoded_;       // [2][kDecodedTileBytes]
  std::byte* weights_tail_;  // [2][kTileBytes]
  std::byte* rows_tail_;     // [rows][kTileRowBytes]
  ShapedTiles<Tiles> tiles_;
};

// The table's function.
template <class Tiles>
void MultiplyBF16(const Product& product, int64_t first, int64_t end,
                  Totals totals, std::byte* scratch) {
  const PackedLayout& layout = *product.layout;
  // Records of integer weights are two tiles, those of bf16 one.
  const int64_t records = IsInteger(layout.format) ? 1 : 2;
  BF16Product<Tiles> run(product, scratch);
  run.PadRows();
  for (int64_t block = 0; block < BlocksFor(layout.inputs); ++block) {
    for (int64_t record = first; record < end; record += records) {
      const bool one_tile = records == 2 && record + 1 == end;
      run.Multiply(block, record, one_tile ? 1 : 2,
                   {totals.data + (record - first) * layout.record_outputs(),
                    totals.stride});
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_
