// The product of integer weights with int8 activations on AMX tiles: a template
// over the tile policy (tile_shapes.h).
//
// A block of 32 rows x 32 outputs is 2 x 2 tiles of int32 sums, over two tiles
// of activations and two of weights: each loaded tile is used twice. At the end
// of a group its sums leave through memory, and become floats there:
//
//   total = fma(float(sum), weight scale * activation scale, total)
//
// That takes 3 vector instructions for 16 outputs, 192 for the block, which the
// two vector ports need 96 cycles for: as long as 6 multiplies. So the update
// of one pair of groups is spread over the multiplies of the next: a few rows
// of it follow each multiply. docs/amx.md counts it all.
#if defined(NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#undef NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

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

namespace hn = hwy::HWY_NAMESPACE;

// Groups of weights whose sums become floats together: a total is loaded and
// stored once for both. With one at a time the load ports would be busier than
// the tile unit at g128, and the store port than the vector ports at g32.
inline constexpr int64_t kGroupsTogether = 2;

// Int32 sums of one group for two groups of rows: [2 x 16 rows][32 outputs].
inline constexpr int64_t kGroupSums = 2 * kTileMaxRows * kRecordOutputs;

// Two groups of rows, or the last one alone.
struct RowPair {
  int64_t first_row;
  int64_t rows[2];             // rows[1] is 0 for one alone
  const std::byte* values[2];  // their int8 panels
  const float* scales[2];      // [groups of the weights][rows]
};

inline RowPair PairOfRows(const Panel& panel, int64_t group,
                          const PackedLayout& layout) {
  RowPair pair = {};
  pair.first_row = panel.groups.Begin(group);
  for (int i = 0; i < 2 && group + i < panel.groups.count; ++i) {
    const int64_t begin = panel.groups.Begin(group + i);
    pair.rows[i] = panel.groups.Size(group + i);
    pair.values[i] =
        panel.values + begin * Int8BlocksFor(layout.inputs) * kInt8BlockInputs;
    pair.scales[i] = panel.scales + begin * layout.groups();
  }
  return pair;
}

// The float update of up to kGroupsTogether groups, done a few rows at a time.
class PendingUpdate {
 public:
  struct Work {
    const int32_t* sums;   // [groups][kGroupSums]
    const float* weights;  // scales: [groups][32]
    int64_t first_group;
    int64_t groups;
    const RowPair* rows;
    float* totals;  // of the pair's first row: [rows][stride]
    int64_t stride;
  };

  // REQUIRES: what was pending is finished.
  HWY_INLINE void Start(const Work& work, int64_t rows_per_call) {
    work_ = work;
    rows_per_call_ = rows_per_call;
    row_ = 0;
    end_ = work.rows->rows[0] + work.rows->rows[1];
  }

  HWY_INLINE void Advance() {
    const int64_t stop = std::min(row_ + rows_per_call_, end_);
    for (; row_ < stop; ++row_) UpdateRow(row_);
  }

  HWY_INLINE void Finish() {
    for (; row_ < end_; ++row_) UpdateRow(row_);
  }

 private:
  HWY_INLINE void UpdateRow(int64_t row) const {
    const hn::CappedTag<float, kTileOutputs> d;
    const hn::RebindToSigned<decltype(d)> di;
    const RowPair& pair = *work_.rows;
    const int half = row < pair.rows[0] ? 0 : 1;
    const int64_t in_half = half == 0 ? row : row - pair.rows[0];
    const float* scale =
        pair.scales[half] + work_.first_group * pair.rows[half] + in_half;
    const int32_t* sums =
        work_.sums + (half * kTileMaxRows + in_half) * kRecordOutputs;
    const float* weights = work_.weights;
    float* totals = work_.totals + row * work_.stride;
    auto total0 = hn::Zero(d), total1 = hn::Zero(d);
    if (work_.first_group != 0) {
      total0 = hn::Load(d, totals);
      total1 = hn::Load(d, totals + kTileOutputs);
    }
    for (int64_t g = 0; g < work_.groups; ++g) {
      const auto a = hn::Set(d, *scale);
      const auto scale0 = hn::Mul(hn::Load(d, weights), a);
      const auto scale1 = hn::Mul(hn::Load(d, weights + kTileOutputs), a);
      const auto sum0 = hn::ConvertTo(d, hn::Load(di, sums));
      const auto sum1 = hn::ConvertTo(d, hn::Load(di, sums + kTileOutputs));
      total0 = hn::MulAdd(sum0, scale0, total0);
      total1 = hn::MulAdd(sum1, scale1, total1);
      scale += pair.rows[half];
      sums += kGroupSums;
      weights += kRecordOutputs;
    }
    hn::Store(total0, d, totals);
    hn::Store(total1, d, totals + kTileOutputs);
  }

  Work work_ = {};
  int64_t rows_per_call_ = 0;
  int64_t row_ = 0;
  int64_t end_ = 0;
};

inline TileShapes ShapesFor(const RowPair& pair, int64_t step) {
  TileShapes shapes;
  shapes.Set(kWeights0, step / 4, kTileRowBytes);
  shapes.Set(kWeights1, step / 4, kTileRowBytes);
  for (int i = 0; i < 2 && pair.rows[i] > 0; ++i) {
    shapes.Set(kSum00 + 2 * i, pair.rows[i], kTileRowBytes);
    shapes.Set(kSum01 + 2 * i, pair.rows[i], kTileRowBytes);
    shapes.Set(kRows0 + i, pair.rows[i], step);
  }
  return shapes;
}

// One group of weights and a pair of groups of rows.
struct GroupProduct {
  const RowPair* rows;
  int64_t first_input;
  int64_t step;  // inputs per multiply
  int64_t steps;
  const uint8_t* weights;  // decoded: [steps][2][step / 4][64 bytes]
  int32_t* sums;           // kGroupSums of them
};

template <class Tiles, bool kPair>
HWY_INLINE void MultiplyGroup(const GroupProduct& product, Tiles& tiles,
                              PendingUpdate& pending) {
  const RowPair& rows = *product.rows;
  const int64_t tile_bytes = product.step / 4 * kTileRowBytes;
  const uint8_t* weights = product.weights;
  tiles.template Zero<kSum00>();
  tiles.template Zero<kSum01>();
  if (kPair) {
    tiles.template Zero<kSum10>();
    tiles.template Zero<kSum11>();
  }
  for (int64_t s = 0; s < product.steps; ++s) {
    const int64_t k = product.first_input + s * product.step;
    const int64_t block = k / kInt8BlockInputs * kInt8BlockInputs;
    // A step of 32 inputs may be the second half of a block of 64.
    const int64_t in_block = k % kInt8BlockInputs;
    tiles.template Load<kRows0>(
        rows.values[0] + block * rows.rows[0] + in_block, kInt8BlockInputs);
    tiles.template Load<kWeights0>(weights, kTileRowBytes);
    tiles.template DotI8<kSum00, kRows0, kWeights0>();
    pending.Advance();
    tiles.template Load<kWeights1>(weights + tile_bytes, kTileRowBytes);
    tiles.template DotI8<kSum01, kRows0, kWeights1>();
    pending.Advance();
    if (kPair) {
      tiles.template Load<kRows1>(
          rows.values[1] + block * rows.rows[1] + in_block, kInt8BlockInputs);
      tiles.template DotI8<kSum10, kRows1, kWeights0>();
      pending.Advance();
      tiles.template DotI8<kSum11, kRows1, kWeights1>();
      pending.Advance();
    }
    weights += 2 * tile_bytes;
  }
  constexpr int64_t kStride = kRecordOutputs * sizeof(int32_t);
  tiles.template Store<kSum00>(product.sums, kStride);
  tiles.template Store<kSum01>(product.sums + kTileOutputs, kStride);
  if (kPair) {
    int32_t* second = product.sums + kTileMaxRows * kRecordOutputs;
    tiles.template Store<kSum10>(second, kStride);
    tiles.template Store<kSum11>(second + kTileOutputs, kStride);
  }
}

// A block of K of one record, decoded.
struct DecodedBlock {
  int64_t first_group;
  int64_t groups;
  const uint8_t* weights;  // [groups][Int8TilePlan::group_bytes]
  const float* scales;     // [groups][32]
};

// One record's outputs over one block of K, for all rows. `sums` takes two
// times kGroupsTogether groups in turns: while the one's become floats, the
// other's are written.
template <class Tiles>
HWY_INLINE void MultiplyBlock(const Product& product, const Int8TilePlan& plan,
                              const DecodedBlock& block, Totals totals,
                              int32_t* sums, ShapedTiles<Tiles>& tiles) {
  const PackedLayout& layout = *product.layout;
  const Panel& panel = product.panel;
  PendingUpdate pending;
  RowPair pairs[2];  // in turns as well
  int64_t turn = 0;
  for (int64_t g = 0; g < panel.groups.count; g += 2) {
    RowPair& rows = pairs[g / 2 % 2];
    rows = PairOfRows(panel, g, layout);
    tiles.Configure(ShapesFor(rows, plan.step));
    const bool two = rows.rows[1] != 0;
    for (int64_t i = 0; i < block.groups; i += kGroupsTogether) {
      const int64_t count = std::min(kGroupsTogether, block.groups - i);
      int32_t* out = sums + turn * kGroupsTogether * kGroupSums;
      for (int64_t j = i; j < i + count; ++j) {
        const int64_t begin = (block.first_group + j) * layout.group_size;
        const int64_t inputs =
            std::min(layout.group_size, layout.inputs - begin);
        const GroupProduct one = {&rows,
                                  begin,
                                  plan.step,
                                  CeilDiv(inputs, plan.step),
                                  block.weights + j * plan.group_bytes,
                                  out + (j - i) * kGroupSums};
        if (two) {
          MultiplyGroup<Tiles, true>(one, tiles.get(), pending);
        } else {
          MultiplyGroup<Tiles, false>(one, tiles.get(), pending);
        }
      }
      pending.Finish();
      // As many rows after each multiply as finish within the next `count`
      // groups.
      const int64_t multiplies = count * plan.steps_per_group * (two ? 4 : 2);
      pending.Start(
          {out, block.scales + i * kRecordOutputs, block.first_group + i, count,
           &rows, totals.data + rows.first_row * totals.stride, totals.stride},
          CeilDiv(rows.rows[0] + rows.rows[1], multiplies));
      turn ^= 1;
    }
  }
  pending.Finish();
}

// Scratch of a thread: sums, then a decoded block's scales and weights.
inline constexpr int64_t kSumsBytes =
    2 * kGroupsTogether * kGroupSums * sizeof(int32_t);

inline int64_t Int8ScratchBytes(const PackedLayout& layout, int64_t /*rows*/) {
  const Int8TilePlan plan(layout);
  return kSumsBytes +
         plan.groups_per_block *
             (kRecordOutputs * static_cast<int64_t>(sizeof(float)) +
              plan.group_bytes);
}

// The table's function.
template <class Tiles>
void MultiplyInt8(const Product& product, int64_t first, int64_t end,
                  Totals totals, std::byte* scratch) {
  const PackedLayout& layout = *product.layout;
  const Int8TilePlan plan(layout);
  auto* sums = reinterpret_cast<int32_t*>(scratch);
  auto* scales = reinterpret_cast<float*>(scratch + kSumsBytes);
  auto* weights = reinterpret_cast<uint8_t*>(scales + plan.groups_per_block *
                                                          kRecordOutputs);
  ShapedTiles<Tiles> tiles(
      ShapesFor(PairOfRows(product.panel, 0, layout), plan.step));
  for (int64_t g = 0; g < layout.groups(); g += plan.groups_per_block) {
    const int64_t count = std::min(plan.groups_per_block, layout.groups() - g);
    for (int64_t record = first; record < end; ++record) {
      const std::byte* bytes = product.weights + record * layout.record_bytes();
      for (int64_t i = 0; i < count; ++i) {
        DecodeScales(layout, bytes, g + i, scales + i * kRecordOutputs);
        DecodeGroup(layout, plan, bytes, g + i, weights + i * plan.group_bytes);
      }
      const Totals record_totals = {
          totals.data + (record - first) * kRecordOutputs, totals.stride};
      MultiplyBlock(product, plan, {g, count, weights, scales}, record_totals,
                    sums, tiles);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
