// The SIMD matrix product, once per Highway target.
//
// MultiplyFloats() walks tiles, blocks of K and groups of rows, and
// MultiplyIntegers() the same over weights that it decodes; MultiplyBlock<> is
// the inner loop: `kRows` rows times `kTiles` tiles held in registers over one
// block of K. A policy says how one step of weights meets one step of
// activations.
#if defined(NIBBLE_KERNELS_MATMUL_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_MULTIPLY_INL_H_
#undef NIBBLE_KERNELS_MATMUL_MULTIPLY_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_MULTIPLY_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul/decode-inl.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The register budget. With 32 registers of 512 bits, 12 rows x 2 tiles make 24
// accumulators, which leaves 2 for weights and 6 for activations in flight;
// with 16 of 256 bits, 6 rows x 1 tile make 12.
#if HWY_CAP_GE512
inline constexpr int kMaxRows = 12;
#else
inline constexpr int kMaxRows = 6;
#endif

// Tiles taken together by a group of `rows` rows. Two are enough for one row to
// keep ahead of memory, and every further stream of weights costs: with 8, 4
// and 2 tiles, one thread reached 76, 86 and 90% of its read bandwidth on Zen 5
// (bf16, 2048 inputs, 5632 outputs), 8 rows 73% and 93%.
constexpr int TilesTogether(int rows) {
  return HWY_CAP_GE512 || rows <= 2 ? 2 : 1;
}

// Weights are prefetched this many steps (3 KiB in each stream) ahead: hardware
// prefetchers stop at the end of a 4 KiB page. Of 16, 32, 48, 64, 96 and 128,
// 48 was best, 0.5 to 4 points of bandwidth better than none at one row; at 16
// rows, where multiplies and memory must overlap, it raised the share of the
// peak from 56 to 85%.
inline constexpr int64_t kPrefetchSteps = 48;

// One call of the inner loop.
struct BlockArgs {
  const uint8_t* weights;  // the block's first step in the first tile
  int64_t tile_bytes;      // from tile to tile
  const uint8_t* panel;    // the group's rows in this block
  int64_t steps;
  float* totals;  // row r, tile t at r * total_stride + t * 16
  int64_t total_stride;
  bool first;  // set the totals instead of adding to them
};

// f32 weights, f32 activations: one k a step.
struct F32Policy {
  static constexpr int64_t kPanelBytes = sizeof(float);  // of one value
  static constexpr int64_t kStepsPerBlock = kBlockInputs;

  template <int kRows, int kVectors>
  static HWY_INLINE void Step(const uint8_t* const* weights,
                              const uint8_t* panel, int64_t step,
                              VF (&sums)[kRows][kVectors]) {
    const TileF32 d;
    VF w[kVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      w[v] = hn::Load(d, reinterpret_cast<const float*>(
                             weights[v / kVectorsPerTile] + step * kStepBytes) +
                             v % kVectorsPerTile * kLanes);
    }
    const float* values = reinterpret_cast<const float*>(panel) + step;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF a = hn::Set(d, values[r * kBlockInputs]);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = hn::MulAdd(w[v], a, sums[r][v]);
      }
    }
  }
};

// bf16 weights widened to f32, f32 activations: two k a step, the odd one first
// as VDPBF16PS does, so that BF16DotPolicy gives the same bits.
struct BF16WidenPolicy {
  static constexpr int64_t kPanelBytes = sizeof(float);
  static constexpr int64_t kStepsPerBlock = kBlockInputs / 2;

  template <int kRows, int kVectors>
  static HWY_INLINE void Step(const uint8_t* const* weights,
                              const uint8_t* panel, int64_t step,
                              VF (&sums)[kRows][kVectors]) {
    const TileF32 d;
    const hn::RebindToUnsigned<TileF32> du;
    VF even[kVectors], odd[kVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const auto pair =
          hn::Load(du, reinterpret_cast<const uint32_t*>(
                           weights[v / kVectorsPerTile] + step * kStepBytes) +
                           v % kVectorsPerTile * kLanes);
      even[v] = hn::BitCast(d, hn::ShiftLeft<16>(pair));
      odd[v] = hn::BitCast(d, hn::And(pair, hn::Set(du, 0xFFFF0000u)));
    }
    const float* values = reinterpret_cast<const float*>(panel) + 2 * step;
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF a_odd = hn::Set(d, values[r * kBlockInputs + 1]);
      const VF a_even = hn::Set(d, values[r * kBlockInputs]);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = hn::MulAdd(odd[v], a_odd, sums[r][v]);
      }
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = hn::MulAdd(even[v], a_even, sums[r][v]);
      }
    }
  }
};

#if HWY_NATIVE_DOT_BF16
// bf16 weights, bf16 activations: VDPBF16PS takes both k of a step.
struct BF16DotPolicy {
  static constexpr int64_t kPanelBytes = sizeof(uint16_t);
  static constexpr int64_t kStepsPerBlock = kBlockInputs / 2;

  template <int kRows, int kVectors>
  static HWY_INLINE void Step(const uint8_t* const* weights,
                              const uint8_t* panel, int64_t step,
                              VF (&sums)[kRows][kVectors]) {
    const TileF32 d;
    const hn::RebindToUnsigned<TileF32> du;
    const hn::Repartition<hwy::bfloat16_t, TileF32> dbf;
    static_assert(kVectorsPerTile == 1);
    hn::Vec<decltype(dbf)> w[kVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      w[v] =
          hn::BitCast(dbf, hn::Load(du, reinterpret_cast<const uint32_t*>(
                                            weights[v] + step * kStepBytes)));
    }
    const uint32_t* pairs = reinterpret_cast<const uint32_t*>(panel) + step;
    VF unused = hn::Zero(d);
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto a =
          hn::BitCast(dbf, hn::Set(du, pairs[r * (kBlockInputs / 2)]));
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] =
            hn::ReorderWidenMulAccumulate(d, a, w[v], sums[r][v], unused);
      }
    }
  }
};
#endif  // HWY_NATIVE_DOT_BF16

template <class Policy, int kRows, int kTiles>
void MultiplyBlock(const BlockArgs& args) {
  constexpr int kVectors = kTiles * kVectorsPerTile;
  const TileF32 d;
  VF sums[kRows][kVectors];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
  }
  const uint8_t* weights[kTiles];
  NIBBLE_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    weights[t] = args.weights + t * args.tile_bytes;
  }
  const uint8_t* panel = args.panel;
  const int64_t steps = args.steps;
  for (int64_t step = 0; step < steps; ++step) {
    NIBBLE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      hwy::Prefetch(weights[t] + (step + kPrefetchSteps) * kStepBytes);
    }
    Policy::template Step<kRows, kVectors>(weights, panel, step, sums);
  }
  // Copied, because the stores below could change args for all the compiler
  // knows.
  const bool first = args.first;
  float* const all_totals = args.totals;
  const int64_t total_stride = args.total_stride;
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* total = all_totals + r * total_stride + v * kLanes;
      VF sum = sums[r][v];
      if (!first) sum = hn::Add(hn::Load(d, total), sum);
      hn::Store(sum, d, total);
    }
  }
}

using BlockFunction = void (*)(const BlockArgs&);

// MultiplyBlock<Policy, rows, tiles> for 1 <= rows <= kMaxRows and tiles a
// power of two up to TilesTogether(rows).
template <class Policy, int kRows, int kTiles = TilesTogether(kRows)>
BlockFunction FindBlockFunction(int64_t tiles) {
  if (tiles == kTiles) return &MultiplyBlock<Policy, kRows, kTiles>;
  if constexpr (kTiles > 1) {
    return FindBlockFunction<Policy, kRows, kTiles / 2>(tiles);
  }
  return nullptr;
}

template <class Policy, int... kRowsMinusOne>
BlockFunction FindBlockFunction(int64_t rows, int64_t tiles,
                                std::integer_sequence<int, kRowsMinusOne...>) {
  BlockFunction found = nullptr;
  ((rows == kRowsMinusOne + 1
        ? void(found = FindBlockFunction<Policy, kRowsMinusOne + 1>(tiles))
        : void()),
   ...);
  return found;
}

// The streams jump when they go on to the next tiles: fetches what the prefetch
// of the inner loop would have covered. Addresses past the end do no harm.
HWY_INLINE void PrefetchTiles(const uint8_t* tiles, int64_t count,
                              int64_t tile_bytes) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t step = 0; step < kPrefetchSteps; ++step) {
      hwy::Prefetch(tiles + t * tile_bytes + step * kStepBytes);
    }
  }
}

// Tiles of weights in one block of K, as MultiplyBlock reads them.
struct WeightBlock {
  const uint8_t* steps;  // of the first tile
  int64_t tile_bytes;    // from tile to tile
  int64_t count;         // steps
};

// All groups of rows times `tiles` tiles in one block of K.
template <class Policy>
HWY_INLINE void MultiplyTiles(const Product& p, const WeightBlock& weights,
                              int64_t tiles, int64_t block, Totals totals) {
  constexpr auto kAllRows = std::make_integer_sequence<int, kMaxRows>();
  constexpr int64_t kRowBytes = kBlockInputs * Policy::kPanelBytes;
  const RowGroups& groups = p.panel.groups;
  const int64_t blocks = BlocksFor(p.layout->inputs);
  BlockArgs args;
  args.tile_bytes = weights.tile_bytes;
  args.weights = weights.steps;
  args.steps = weights.count;
  args.total_stride = totals.stride;
  args.first = block == 0;
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t row = groups.Begin(group);
    const int64_t rows = groups.Size(group);
    args.panel = reinterpret_cast<const uint8_t*>(p.panel.values) +
                 (row * blocks + rows * block) * kRowBytes;
    args.totals = totals.data + row * totals.stride;
    FindBlockFunction<Policy>(rows, tiles, kAllRows)(args);
  }
}

// Steps of one block of K; the last block may be shorter.
template <class Policy>
int64_t StepsOfBlock(int64_t inputs, int64_t block) {
  constexpr int64_t kPerStep = kBlockInputs / Policy::kStepsPerBlock;
  return std::min(Policy::kStepsPerBlock,
                  CeilDiv(inputs, kPerStep) - block * Policy::kStepsPerBlock);
}

// Float weights, a tile to a record.
template <class Policy>
void MultiplyFloats(const Product& p, int64_t first, int64_t end, Totals totals,
                    std::byte* /*scratch*/) {
  const int64_t together =
      TilesTogether(static_cast<int>(p.panel.groups.MaxSize()));
  // With one group the weights pass once, front to back; with several, a few
  // tiles share each block's panel of activations while it is in the cache.
  const int64_t in_flight = p.panel.groups.count == 1 ? together : end - first;
  const int64_t blocks = BlocksFor(p.layout->inputs);
  WeightBlock weights;
  weights.tile_bytes = p.layout->record_bytes();
  const uint8_t* records = reinterpret_cast<const uint8_t*>(p.weights);
  for (int64_t tile = first; tile < end; tile += in_flight) {
    const int64_t tiles = std::min(in_flight, end - tile);
    for (int64_t block = 0; block < blocks; ++block) {
      weights.count = StepsOfBlock<Policy>(p.layout->inputs, block);
      int64_t width = together;
      for (int64_t t = tile; t < tile + tiles; t += width) {
        while (width > tile + tiles - t) width /= 2;
        weights.steps = records + t * weights.tile_bytes +
                        block * Policy::kStepsPerBlock * kStepBytes;
        if (p.panel.groups.count == 1 && block == blocks - 1) {
          PrefetchTiles(records + (t + width) * weights.tile_bytes, width,
                        weights.tile_bytes);
        }
        MultiplyTiles<Policy>(
            p, weights, width, block,
            {totals.data + (t - first) * kTileOutputs, totals.stride});
      }
    }
  }
}

// Integer weights, decoded to what Policy multiplies, a block of K at a time.
template <class Policy>
void MultiplyIntegers(const Product& p, int64_t first, int64_t end,
                      Totals totals, std::byte* scratch) {
  constexpr int64_t kTiles = kRecordOutputs / kTileOutputs;
  constexpr int64_t kTileBytes = Policy::kStepsPerBlock * kStepBytes;
  constexpr bool kAsF32 = Policy::kStepsPerBlock == kBlockInputs;
  const int64_t together =
      TilesTogether(static_cast<int>(p.panel.groups.MaxSize()));
  const int64_t inputs = p.layout->inputs;
  for (int64_t record = first; record < end; ++record) {
    for (int64_t block = 0; block < BlocksFor(inputs); ++block) {
      DecodeBlock<kAsF32>(*p.layout,
                          p.weights + record * p.layout->record_bytes(), block,
                          scratch);
      for (int64_t t = 0; t < kTiles; t += together) {
        const WeightBlock weights = {
            reinterpret_cast<const uint8_t*>(scratch) + t * kTileBytes,
            kTileBytes, StepsOfBlock<Policy>(inputs, block)};
        const int64_t output = (record - first) * kRecordOutputs;
        MultiplyTiles<Policy>(
            p, weights, together, block,
            {totals.data + output + t * kTileOutputs, totals.stride});
      }
    }
  }
}

// What the table lists of this target.
struct FloatKernels {
  using F32 = F32Policy;
  using BF16 = BF16WidenPolicy;
#if HWY_NATIVE_DOT_BF16
  using BF16Dot = BF16DotPolicy;
#endif
  static constexpr int64_t kRows = kMaxRows;
  template <class Policy>
  static constexpr MultiplyFunction kFloats = &MultiplyFloats<Policy>;
  template <class Policy>
  static constexpr MultiplyFunction kIntegers = &MultiplyIntegers<Policy>;
};

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_MULTIPLY_INL_H_
