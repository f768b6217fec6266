// The loops behind convert_table.h. They are plain C++ that the compiler turns
// into vector code, once for each of Highway's targets. The build file asks for
// -O3, at which both compilers vectorise, and for -ffp-contract=off: a fused
// multiply-add rounds once where the formats' definition rounds twice.
#include <cstring>

#include "kernels/convert/convert_table.h"
#include "tensor/block_format.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convert/convert_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

// ---- Plain types: a block is one element.

void DecodeF32(const std::byte* in, int64_t count, float* out) {
  // memcpy must not see the null pointers of an empty tensor.
  if (count > 0) std::memcpy(out, in, static_cast<size_t>(count) * 4);
}

void DecodeF16(const std::byte* in, int64_t count, float* HWY_RESTRICT out) {
  const F16* values = reinterpret_cast<const F16*>(in);
  for (int64_t i = 0; i < count; ++i) out[i] = ToFloat(values[i]);
}

void DecodeBF16(const std::byte* in, int64_t count, float* HWY_RESTRICT out) {
  const BF16* values = reinterpret_cast<const BF16*>(in);
  for (int64_t i = 0; i < count; ++i) out[i] = ToFloat(values[i]);
}

// ---- Blocks of 32. The formulas stand in tensor/block_format.h.

HWY_INLINE void DecodeBlock(const BlockQ4_0& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>((block.qs[i] & 15) - 8) * d;
  }
  for (int i = 0; i < 16; ++i) {
    y[i + 16] = static_cast<float>((block.qs[i] >> 4) - 8) * d;
  }
}

HWY_INLINE void DecodeBlock(const BlockQ4_1& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  const float m = ToFloat(block.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(block.qs[i] & 15) * d + m;
  }
  for (int i = 0; i < 16; ++i) {
    y[i + 16] = static_cast<float>(block.qs[i] >> 4) * d + m;
  }
}

// The fifth bits of a Q5_0 or Q5_1 block, bit i for element i.
HWY_INLINE uint32_t FifthBits(const uint8_t* qh) {
  uint32_t bits;
  std::memcpy(&bits, qh, sizeof(bits));
  return bits;
}

HWY_INLINE void DecodeBlock(const BlockQ5_0& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  const uint32_t high = FifthBits(block.qh);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = (block.qs[i] & 15u) | (((high >> i) & 1u) << 4);
    y[i] = static_cast<float>(static_cast<int32_t>(q) - 16) * d;
  }
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = (block.qs[i] >> 4) | (((high >> (i + 16)) & 1u) << 4);
    y[i + 16] = static_cast<float>(static_cast<int32_t>(q) - 16) * d;
  }
}

HWY_INLINE void DecodeBlock(const BlockQ5_1& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  const float m = ToFloat(block.m);
  const uint32_t high = FifthBits(block.qh);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = (block.qs[i] & 15u) | (((high >> i) & 1u) << 4);
    y[i] = static_cast<float>(static_cast<int32_t>(q)) * d + m;
  }
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = (block.qs[i] >> 4) | (((high >> (i + 16)) & 1u) << 4);
    y[i + 16] = static_cast<float>(static_cast<int32_t>(q)) * d + m;
  }
}

HWY_INLINE void DecodeBlock(const BlockQ8_0& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(block.qs[i]) * d;
}

// ---- Super-blocks of 256.

// The 6-bit scale and minimum of sub-block j of a Q4_K or Q5_K block.
struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};

HWY_INLINE ScaleMin UnpackScaleMin(const uint8_t* s, int j) {
  if (j < 4) {
    return {static_cast<uint8_t>(s[j] & 63),
            static_cast<uint8_t>(s[j + 4] & 63)};
  }
  return {static_cast<uint8_t>((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)),
          static_cast<uint8_t>((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

HWY_INLINE void DecodeBlock(const BlockQ4_K& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  const float dmin = ToFloat(block.dmin);
  for (int pair = 0; pair < 4; ++pair) {
    const ScaleMin low = UnpackScaleMin(block.scales, 2 * pair);
    const ScaleMin high = UnpackScaleMin(block.scales, 2 * pair + 1);
    const float d0 = d * low.scale, m0 = dmin * low.min;
    const float d1 = d * high.scale, m1 = dmin * high.min;
    const uint8_t* HWY_RESTRICT qs = block.qs + 32 * pair;
    float* HWY_RESTRICT out = y + 64 * pair;
    for (int l = 0; l < 32; ++l) {
      out[l] = d0 * static_cast<float>(qs[l] & 15) - m0;
    }
    for (int l = 0; l < 32; ++l) {
      out[l + 32] = d1 * static_cast<float>(qs[l] >> 4) - m1;
    }
  }
}

HWY_INLINE void DecodeBlock(const BlockQ5_K& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  const float dmin = ToFloat(block.dmin);
  for (int pair = 0; pair < 4; ++pair) {
    const ScaleMin low = UnpackScaleMin(block.scales, 2 * pair);
    const ScaleMin high = UnpackScaleMin(block.scales, 2 * pair + 1);
    const float d0 = d * low.scale, m0 = dmin * low.min;
    const float d1 = d * high.scale, m1 = dmin * high.min;
    const uint8_t* HWY_RESTRICT qs = block.qs + 32 * pair;
    const uint8_t* HWY_RESTRICT qh = block.qh;
    float* HWY_RESTRICT out = y + 64 * pair;
    for (int l = 0; l < 32; ++l) {
      const int q = (qs[l] & 15) | (((qh[l] >> (2 * pair)) & 1) << 4);
      out[l] = d0 * static_cast<float>(q) - m0;
    }
    for (int l = 0; l < 32; ++l) {
      const int q = (qs[l] >> 4) | (((qh[l] >> (2 * pair + 1)) & 1) << 4);
      out[l + 32] = d1 * static_cast<float>(q) - m1;
    }
  }
}

HWY_INLINE void DecodeBlock(const BlockQ6_K& block, float* HWY_RESTRICT y) {
  const float d = ToFloat(block.d);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* HWY_RESTRICT ql = block.ql + 64 * half;
    const uint8_t* HWY_RESTRICT qh = block.qh + 32 * half;
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint8_t* HWY_RESTRICT low = ql + 32 * (quarter & 1);
      const int low_shift = quarter < 2 ? 0 : 4;
      const int8_t* scales = block.scales + 8 * half + 2 * quarter;
      float* HWY_RESTRICT out = y + 128 * half + 32 * quarter;
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(scales[part]);
        for (int l = 16 * part; l < 16 * part + 16; ++l) {
          const int q = ((low[l] >> low_shift) & 15) |
                        (((qh[l] >> (2 * quarter)) & 3) << 4);
          out[l] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
}

template <class Block>
void DecodeBlocks(const std::byte* in, int64_t blocks, float* out) {
  constexpr int64_t kElements =
      sizeof(Block) >= sizeof(BlockQ4_K) ? kSuperBlockElements : kBlockElements;
  const Block* HWY_RESTRICT typed = reinterpret_cast<const Block*>(in);
  for (int64_t i = 0; i < blocks; ++i) {
    DecodeBlock(typed[i], out + i * kElements);
  }
}

// ---- Narrowing.

void NarrowToBF16(const float* HWY_RESTRICT in, int64_t count,
                  BF16* HWY_RESTRICT out) {
  for (int64_t i = 0; i < count; ++i) out[i] = ToBF16(in[i]);
}

void NarrowToF16(const float* HWY_RESTRICT in, int64_t count,
                 F16* HWY_RESTRICT out) {
  for (int64_t i = 0; i < count; ++i) out[i] = ToF16(in[i]);
}

bool AllFiniteLoop(const float* in, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, in + i, sizeof(bits));
    bad |= (bits & 0x7F800000u) == 0x7F800000u ? 1u : 0u;
  }
  return bad == 0;
}

}  // namespace

const ConvertTable* Table() {
  static constexpr ConvertTable kTable = {
      {
          DecodeF32,                // kF32
          DecodeF16,                // kF16
          DecodeBF16,               // kBF16
          nullptr,                  // kF64
          nullptr,                  // kI8
          nullptr,                  // kU8
          nullptr,                  // kI16
          nullptr,                  // kI32
          nullptr,                  // kI64
          nullptr,                  // kBool
          DecodeBlocks<BlockQ4_0>,  // kQ4_0
          DecodeBlocks<BlockQ4_1>,  // kQ4_1
          DecodeBlocks<BlockQ5_0>,  // kQ5_0
          DecodeBlocks<BlockQ5_1>,  // kQ5_1
          DecodeBlocks<BlockQ8_0>,  // kQ8_0
          DecodeBlocks<BlockQ4_K>,  // kQ4_K
          DecodeBlocks<BlockQ5_K>,  // kQ5_K
          DecodeBlocks<BlockQ6_K>,  // kQ6_K
      },
      NarrowToBF16,
      NarrowToF16,
      AllFiniteLoop,
  };
  return &kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Table);

const ConvertTable& ActiveConvertTable() {
  return *HWY_DYNAMIC_DISPATCH(Table)();
}

}  // namespace nibble
#endif  // HWY_ONCE
