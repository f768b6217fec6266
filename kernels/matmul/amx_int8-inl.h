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
// two vector ports need 96 cycles for: as long as 6 multiplies. So it is spread
// over the multiplies of the groups that follow, a few rows after each, and so
// is the decoding of the next block of weights. docs/amx.md counts it all.
#if defined(NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#undef NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

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
    const TileF32 d;
    const RowPair& rows = *work.rows;
    rows_per_call_ = rows_per_call;
    rows_left_ = rows.rows[0] + rows.rows[1];
    two_groups_ = work.groups == 2;
    weights_[0][0] = hn::Load(d, work.weights);
    weights_[0][1] = hn::Load(d, work.weights + kTileOutputs);
    if (two_groups_) {
      const float* second = work.weights + kRecordOutputs;
      weights_[1][0] = hn::Load(d, second);
      weights_[1][1] = hn::Load(d, second + kTileOutputs);
    }
    sums_ = work.sums;
    scales_ = rows.scales[0] + work.first_group * rows.rows[0];
    rows_left_in_tile_ = scales_per_group_ = rows.rows[0];
    second_sums_ = sums_ + kTileMaxRows * kRecordOutputs;
    second_scales_ = rows.scales[1] + work.first_group * rows.rows[1];
    second_rows_ = rows.rows[1];
    totals_ = work.totals;
    stride_ = work.stride;
  }

  HWY_INLINE void Advance() { Update(std::min(rows_per_call_, rows_left_)); }
  HWY_INLINE void Finish() { Update(rows_left_); }

 private:
  HWY_INLINE void Update(int64_t rows) {
    rows_left_ -= rows;
    for (; rows > 0; --rows) {
      if (two_groups_) {
        UpdateRow<2>();
      } else {
        UpdateRow<1>();
      }
    }
  }

  template <int kGroups>
  HWY_INLINE void UpdateRow() {
    const TileF32 d;
    const hn::RebindToSigned<TileF32> di;
    if (rows_left_in_tile_ == 0) {
      sums_ = second_sums_;
      scales_ = second_scales_;
      rows_left_in_tile_ = scales_per_group_ = second_rows_;
    }
    VF total0 = hn::Load(d, totals_);
    VF total1 = hn::Load(d, totals_ + kTileOutputs);
    NIBBLE_UNROLL
    for (int i = 0; i < kGroups; ++i) {
      const VF a = hn::Set(d, scales_[i * scales_per_group_]);
      const int32_t* sums = sums_ + i * kGroupSums;
      total0 = hn::MulAdd(hn::ConvertTo(d, hn::Load(di, sums)),
                          hn::Mul(weights_[i][0], a), total0);
      total1 = hn::MulAdd(hn::ConvertTo(d, hn::Load(di, sums + kTileOutputs)),
                          hn::Mul(weights_[i][1], a), total1);
    }
    hn::Store(total0, d, totals_);
    hn::Store(total1, d, totals_ + kTileOutputs);
    sums_ += kRecordOutputs;
    ++scales_;
    totals_ += stride_;
    --rows_left_in_tile_;
  }

  int64_t rows_per_call_ = 0;
  int64_t rows_left_ = 0;
  bool two_groups_ = false;
  VF weights_[kGroupsTogether][2];  // scales of both tiles
  // Of the next row.
  const int32_t* sums_ = nullptr;
  const float* scales_ = nullptr;  // its activations', of the first group
  int64_t scales_per_group_ = 0;
  float* totals_ = nullptr;
  int64_t stride_ = 0;
  // Until the second group of rows begins.
  int64_t rows_left_in_tile_ = 0;
  const int32_t* second_sums_ = nullptr;
  const float* second_scales_ = nullptr;
  int64_t second_rows_ = 0;
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

// What vector instructions do between the multiplies.
struct VectorWork {
  PendingUpdate* update;
  BlockDecoder* decoder;
  int64_t chunks_per_step;  // of the decoder
};

template <class Tiles, bool kPair>
HWY_INLINE void MultiplyGroup(const GroupProduct& product,
                              const VectorWork& work, Tiles& tiles) {
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
    tiles.template Load<kWeights1>(weights + tile_bytes, kTileRowBytes);
    tiles.template DotI8<kSum01, kRows0, kWeights1>();
    work.update->Advance();
    if (kPair) {
      tiles.template Load<kRows1>(
          rows.values[1] + block * rows.rows[1] + in_block, kInt8BlockInputs);
      tiles.template DotI8<kSum10, kRows1, kWeights0>();
      tiles.template DotI8<kSum11, kRows1, kWeights1>();
      work.update->Advance();
    }
    if (!work.decoder->finished()) {
      work.decoder->Advance(work.chunks_per_step);
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

// Scratch of a thread: the sums of two times kGroupsTogether groups, the one's
// written while the other's become floats, and two decoded blocks likewise.
inline constexpr int64_t kSumsBytes =
    2 * kGroupsTogether * kGroupSums * sizeof(int32_t);

inline int64_t DecodedBytes(const Int8TilePlan& plan) {
  return plan.groups_per_block *
         (kRecordOutputs * static_cast<int64_t>(sizeof(float)) +
          plan.group_bytes);
}

inline int64_t Int8ScratchBytes(const PackedLayout& layout, int64_t /*rows*/) {
  return kSumsBytes + 2 * DecodedBytes(Int8TilePlan(layout));
}

// Records [first, end) on their way through the blocks of K: all of them pass
// over a block before the next one, so that its activations stay in L2.
template <class Tiles>
class Int8Product {
 public:
  Int8Product(const Product& product, std::byte* scratch)
      : product_(product),
        layout_(*product.layout),
        panel_(product.panel),
        plan_(layout_),
        sums_(reinterpret_cast<int32_t*>(scratch)),
        decoded_(scratch + kSumsBytes),
        decoder_(layout_, plan_),
        tiles_(ShapesFor(PairOfRows(panel_, 0, layout_), plan_.step)) {}

  void Run(int64_t first, int64_t end, Totals totals) {
    const int64_t records = end - first;
    const int64_t blocks = CeilDiv(layout_.groups(), plan_.groups_per_block);
    ZeroTotals(records, totals);
    Decode(0, 0, first);
    decoder_.Finish();
    for (int64_t i = 0; i < blocks * records; ++i) {
      const int64_t next = i + 1;
      if (next < blocks * records) {
        Decode(next, next / records, first + next % records);
      }
      MultiplyBlock(
          Block(i, i / records),
          {totals.data + i % records * kRecordOutputs, totals.stride});
      decoder_.Finish();
    }
    update_.Finish();
  }

 private:
  // Where block `block` of K lies while it is the `turn`th that is multiplied.
  DecodedBlock Block(int64_t turn, int64_t block) const {
    std::byte* bytes = decoded_ + turn % 2 * DecodedBytes(plan_);
    DecodedBlock decoded;
    decoded.first_group = block * plan_.groups_per_block;
    decoded.groups = std::min(plan_.groups_per_block,
                              layout_.groups() - decoded.first_group);
    decoded.scales = reinterpret_cast<float*>(bytes);
    decoded.weights = reinterpret_cast<uint8_t*>(
        decoded.scales + plan_.groups_per_block * kRecordOutputs);
    return decoded;
  }

  // Begins to decode, at a pace that a block of full groups keeps up with.
  void Decode(int64_t turn, int64_t block, int64_t record) {
    decoder_.Start(product_.weights + record * layout_.record_bytes(),
                   Block(turn, block));
    const int64_t steps = plan_.groups_per_block * plan_.steps_per_group *
                          CeilDiv(panel_.groups.count, 2);
    const int64_t chunks = plan_.groups_per_block *
                           CeilDiv(layout_.group_size, layout_.chunk_inputs());
    chunks_per_step_ = CeilDiv(chunks, steps);
  }

  void ZeroTotals(int64_t records, Totals totals) const {
    for (int64_t row = 0; row < panel_.groups.rows; ++row) {
      std::memset(totals.data + row * totals.stride, 0,
                  records * kRecordOutputs * sizeof(float));
    }
  }

  // One record's outputs over one block of K, for all rows.
  HWY_INLINE void MultiplyBlock(const DecodedBlock& block, Totals totals) {
    for (int64_t g = 0; g < panel_.groups.count; g += 2) {
      const RowPair rows = PairOfRows(panel_, g, layout_);
      tiles_.Configure(ShapesFor(rows, plan_.step));
      if (rows.rows[1] != 0) {
        MultiplyRows<true>(rows, block, totals);
      } else {
        MultiplyRows<false>(rows, block, totals);
      }
    }
  }

  template <bool kPair>
  HWY_INLINE void MultiplyRows(const RowPair& rows, const DecodedBlock& block,
                               Totals totals) {
    // A copy of its own stays in registers, four vectors of scales among it.
    PendingUpdate update = update_;
    const VectorWork work = {&update, &decoder_, chunks_per_step_};
    for (int64_t i = 0; i < block.groups; i += kGroupsTogether) {
      const int64_t count = std::min(kGroupsTogether, block.groups - i);
      int32_t* sums = sums_ + turn_ * kGroupsTogether * kGroupSums;
      turn_ ^= 1;
      for (int64_t j = 0; j < count; ++j) {
        const int64_t begin = (block.first_group + i + j) * layout_.group_size;
        const int64_t inputs =
            std::min(layout_.group_size, layout_.inputs - begin);
        const GroupProduct group = {&rows,
                                    begin,
                                    plan_.step,
                                    CeilDiv(inputs, plan_.step),
                                    block.weights + (i + j) * plan_.group_bytes,
                                    sums + j * kGroupSums};
        MultiplyGroup<Tiles, kPair>(group, work, tiles_.get());
      }
      update.Finish();
      // As many rows a time as finish within `count` groups.
      const int64_t calls = count * plan_.steps_per_group * (kPair ? 2 : 1);
      update.Start(
          {sums, block.scales + i * kRecordOutputs, block.first_group + i,
           count, &rows, totals.data + rows.first_row * totals.stride,
           totals.stride},
          CeilDiv(rows.rows[0] + rows.rows[1], calls));
    }
    update_ = update;
  }

  const Product& product_;
  const PackedLayout& layout_;
  const Panel& panel_;
  const Int8TilePlan plan_;
  int32_t* sums_;       // [2][kGroupsTogether][kGroupSums]
  std::byte* decoded_;  // [2][DecodedBytes()]
  int turn_ = 0;        // of the sums
  PendingUpdate update_;
  BlockDecoder decoder_;
  int64_t chunks_per_step_ = 0;
  ShapedTiles<Tiles> tiles_;
};

// The table's function.
template <class Tiles>
void MultiplyInt8(const Product& product, int64_t first, int64_t end,
                  Totals totals, std::byte* scratch) {
  Int8Product<Tiles>(product, scratch).Run(first, end, totals);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_AMX_INT8_INL_H_
