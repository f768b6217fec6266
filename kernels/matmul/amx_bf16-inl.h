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
#include "kernels/matmul/amx_decode-inl.h"
#include "kernels/matmul/amx_plan.h"
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
  const std::byte* rows[2];          // [rows][kBF16RowStride]; null for none
  const std::byte* rows_tail[2];     // [rows][kTileRowBytes]
  float* totals[2];                  // of a group of rows: [rows][stride]
  int64_t stride;
  bool first;  // the sums start at 0
  // Works on the next block, so many units after each step.
  BF16Decoder* decoder;
  int64_t units_per_step;
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
    const int64_t at = s * kTileRowBytes;
    const std::byte* rows[2] = {p.rows[0] + at,
                                kTwoRows ? p.rows[1] + at : nullptr};
    MultiplyStep<Tiles, kTwoRows, kTwoTiles>(tiles, rows, kBF16RowStride,
                                             p.weights, s * kTileBytes);
    if (!p.decoder->finished()) p.decoder->Advance(p.units_per_step);
  }
  if (p.has_tail) {
    MultiplyStep<Tiles, kTwoRows, kTwoTiles>(tiles, p.rows_tail, kTileRowBytes,
                                             p.weights_tail, 0);
  }
  ForEachSum<kTwoRows, kTwoTiles>(p.totals, [&](auto tile, float* totals) {
    tiles.template Store<decltype(tile)::value>(totals, stride);
  });
}

// Scratch of a thread: two decoded blocks in turns, the tails of the weights'
// two tiles, then those of all rows.
inline int64_t BF16ScratchBytes(const PackedLayout& /*layout*/, int64_t rows) {
  return 2 * 2 * kBF16TileBytes + 2 * kTileBytes + rows * kTileRowBytes;
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
        weights_tail_(decoded_ + 2 * 2 * kBF16TileBytes),
        rows_tail_(weights_tail_ + 2 * kTileBytes),
        decoder_(layout_),
        tiles_(ShapesOf(0)) {}

  // Records [first, end): all of them pass over a block before the next one.
  void Run(int64_t first, int64_t end, Totals totals) {
    PadRows();
    // Records of integer weights are two tiles, those of bf16 one.
    const int64_t together = IsInteger(layout_.format) ? 1 : 2;
    const int64_t turns = CeilDiv(end - first, together);
    StartDecoding(0, 0, first);
    decoder_.Finish();
    for (int64_t i = 0; i < blocks_ * turns; ++i) {
      const int64_t next = i + 1;
      if (next < blocks_ * turns) {
        StartDecoding(next, next / turns, first + next % turns * together);
      }
      const int64_t record = first + i % turns * together;
      const bool one_tile = together == 2 && record + 1 == end;
      Multiply(i, i / turns, record, one_tile ? 1 : 2,
               {totals.data + (record - first) * layout_.record_outputs(),
                totals.stride});
      decoder_.Finish();
    }
  }

 private:
  std::byte* Decoded(int64_t turn) const {
    return decoded_ + turn % 2 * 2 * kBF16TileBytes;
  }

  void StartDecoding(int64_t turn, int64_t block, int64_t record) {
    if (!IsInteger(layout_.format)) return;
    decoder_.Start(product_.weights + record * layout_.record_bytes(), block,
                   Decoded(turn));
  }

  // Outputs of `tiles` tiles (1 or 2) from record `record` on, in one block.
  void Multiply(int64_t turn, int64_t block, int64_t record, int tiles,
                Totals totals) {
    BF16BlockProduct p = {};
    const int64_t inputs =
        std::min(kBlockInputs, layout_.inputs - block * kBlockInputs);
    p.full_steps = inputs / kBF16StepInputs;
    p.has_tail = inputs % kBF16StepInputs != 0;
    p.stride = totals.stride;
    p.first = block == 0;
    p.decoder = &decoder_;
    p.units_per_step =
        CeilDiv(decoder_.units_per_block(),
                kBlockInputs / kBF16StepInputs * CeilDiv(groups_.count, 2));
    SetWeights(turn, block, record, tiles, inputs, p);
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

  // Finds the weights of a block, decoded or in place, and pads the last step.
  void SetWeights(int64_t turn, int64_t block, int64_t record, int tiles,
                  int64_t inputs, BF16BlockProduct& p) {
    const std::byte* bytes = product_.weights + record * layout_.record_bytes();
    const int64_t tail_steps = CeilDiv(inputs, 2) - p.full_steps * kTileMaxRows;
    for (int t = 0; t < tiles; ++t) {
      p.weights[t] =
          IsInteger(layout_.format)
              ? Decoded(turn) + t * kBF16TileBytes
              : bytes + t * layout_.record_bytes() + block * kBF16TileBytes;
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
  std::byte* decoded_;       // [2 turns][2 tiles][kBF16TileBytes]
  std::byte* weights_tail_;  // [2][kTileBytes]
  std::byte* rows_tail_;     // [rows][kTileRowBytes]
  BF16Decoder decoder_;
  ShapedTiles<Tiles> tiles_;
};

// The table's function.
template <class Tiles>
void MultiplyBF16(const Product& product, int64_t first, int64_t end,
                  Totals totals, std::byte* scratch) {
  BF16Product<Tiles>(product, scratch).Run(first, end, totals);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_BF16_INL_H_
