// Integer weights decoded to the f32 or bf16 that the float products multiply,
// once per Highway target.
#if defined(NIBBLE_KERNELS_MATMUL_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_DECODE_INL_H_
#undef NIBBLE_KERNELS_MATMUL_DECODE_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_DECODE_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

// Loops over registers: the compiler must unroll them completely.
#ifndef NIBBLE_UNROLL
#define NIBBLE_UNROLL _Pragma("GCC unroll 32")
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A tile's 16 outputs as one vector of 512 bits or several narrower ones.
using TileF32 = hn::CappedTag<float, kTileOutputs>;
using VF = hn::Vec<TileF32>;
inline constexpr int kLanes = hn::MaxLanes(TileF32());
inline constexpr int kVectorsPerTile = static_cast<int>(kTileOutputs) / kLanes;

// Vector v (of kLanes outputs) for one group of a record's `numbers`, its
// scales or minimums.
HWY_INLINE VF LoadNumbers(const PackedLayout& layout, const std::byte* numbers,
                          int64_t group, int v) {
  const TileF32 d;
  const int64_t first = group * kRecordOutputs + v * kLanes;
  if (layout.wide_scales) {
    return hn::Load(d, reinterpret_cast<const float*>(numbers) + first);
  }
  const hn::Rebind<hwy::float16_t, TileF32> d16;
  return hn::PromoteTo(
      d,
      hn::Load(d16, reinterpret_cast<const hwy::float16_t*>(numbers) + first));
}

HWY_INLINE VF LoadScales(const PackedLayout& layout, const std::byte* record,
                         int64_t group, int v) {
  return LoadNumbers(layout, record, group, v);
}

// Zeros where there are none.
HWY_INLINE VF LoadMinimums(const PackedLayout& layout, const std::byte* record,
                           int64_t group, int v) {
  if (!layout.has_minimums()) return hn::Zero(TileF32());
  return LoadNumbers(layout, record + layout.minimums_offset(), group, v);
}

// The same of its zero points, 0 with minimums.
HWY_INLINE hn::Vec<hn::RebindToSigned<TileF32>> LoadZeros(
    const PackedLayout& layout, const std::byte* record, int64_t group, int v) {
  const hn::RebindToSigned<TileF32> di;
  if (!layout.has_zeros()) {
    return hn::Set(di, static_cast<int32_t>(layout.symmetric_zero()));
  }
  const hn::Rebind<uint8_t, TileF32> d8;
  const uint8_t* zeros =
      reinterpret_cast<const uint8_t*>(record + layout.zeros_offset()) +
      group * kTileOutputs + v % kVectorsPerTile * kLanes;
  const auto pair = hn::PromoteTo(di, hn::LoadU(d8, zeros));
  return v < kVectorsPerTile ? hn::And(pair, hn::Set(di, 15))
                             : hn::ShiftRight<4>(pair);
}

// bf16 bits of finite values, rounded to nearest even, in the low half.
template <class V>
HWY_INLINE auto RoundToBF16(V values) {
  const hn::RebindToUnsigned<TileF32> du;
  const auto bits = hn::BitCast(du, values);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  return hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd));
}

// One vector of a chunk: kLanes outputs, 4 bytes each.
struct DecodeArgs {
  const uint32_t* words;
  VF scales;
  VF zeros;
  VF minimums;
  std::byte* out;  // of the chunk's first step
};

// Codes kFirst, kFirst + 1, ... of a word lie kBits * 1 apart in `word`, each
// in a byte of its own.
template <bool kAsF32, int kBits>
HWY_INLINE void DecodeWords(const DecodeArgs& args) {
  const TileF32 d;
  const hn::RebindToSigned<TileF32> di;
  const hn::RebindToUnsigned<TileF32> du;
  const auto words = hn::Load(du, args.words);
  // Inputs of the chunk: low nibbles of the four bytes, then high ones.
  constexpr int kCount = 32 / kBits;
  const auto mask = hn::Set(du, (1u << kBits) - 1);
  VF values[kCount];
  NIBBLE_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const int shift = i % 4 * 8 + i / 4 * 4;
    const auto code = hn::And(hn::ShiftRightSame(words, shift), mask);
    values[i] =
        hn::MulAdd(hn::Sub(hn::ConvertTo(d, hn::BitCast(di, code)), args.zeros),
                   args.scales, args.minimums);
  }
  if constexpr (kAsF32) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      hn::Store(values[i], d,
                reinterpret_cast<float*>(args.out + i * kStepBytes));
    }
  } else {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; i += 2) {
      const auto pair = hn::Or(RoundToBF16(values[i]),
                               hn::ShiftLeft<16>(RoundToBF16(values[i + 1])));
      hn::Store(pair, du,
                reinterpret_cast<uint32_t*>(args.out + i / 2 * kStepBytes));
    }
  }
}

// Codes are prefetched this far ahead; see int8_multiply-inl.h.
inline constexpr int64_t kDecodePrefetchBytes = 4096;

// Block `block` of 256 inputs of a record becomes two tiles of steps at `out`,
// each of the size of a whole block, as packed_layout.h draws f32 or bf16.
template <bool kAsF32>
void DecodeBlock(const PackedLayout& layout, const std::byte* record,
                 int64_t block, std::byte* out) {
  constexpr int64_t kStepInputs = kAsF32 ? 1 : 2;
  constexpr int64_t kTileBytes = kBlockInputs / kStepInputs * kStepBytes;
  const TileF32 d;
  const int64_t per_chunk = layout.chunk_inputs();
  const int64_t end = std::min(layout.inputs, (block + 1) * kBlockInputs);
  for (int64_t k = block * kBlockInputs; k < end;) {
    const int64_t group = k / layout.group_size;
    const int64_t group_end = std::min(end, (group + 1) * layout.group_size);
    const std::byte* codes =
        record + layout.codes_offset() + k / per_chunk * 2 * kStepBytes;
    for (int v = 0; v < 2 * kVectorsPerTile; ++v) {
      DecodeArgs args;
      args.scales = LoadScales(layout, record, group, v);
      args.zeros = hn::ConvertTo(d, LoadZeros(layout, record, group, v));
      args.minimums = LoadMinimums(layout, record, group, v);
      args.words = reinterpret_cast<const uint32_t*>(codes) + v * kLanes;
      args.out = out + v / kVectorsPerTile * kTileBytes +
                 k % kBlockInputs / kStepInputs * kStepBytes +
                 v % kVectorsPerTile * kLanes * 4;
      for (int64_t i = k; i < group_end; i += per_chunk) {
        hwy::Prefetch(reinterpret_cast<const std::byte*>(args.words) +
                      kDecodePrefetchBytes);
        if (per_chunk == 8) {
          DecodeWords<kAsF32, 4>(args);
        } else {
          DecodeWords<kAsF32, 8>(args);
        }
        args.words += 2 * kStepBytes / 4;
        args.out += per_chunk / kStepInputs * kStepBytes;
      }
    }
    k = group_end;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_DECODE_INL_H_
