#include "kernels/matmul/kernels_hwy.h"

#include "kernels/cpu.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/bf16.h"
#include "tensor/packed_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/kernels_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

// Below AVX2 the scalar reference serves.
#if HWY_TARGET <= HWY_AVX2
#include "kernels/matmul/multiply-inl.h"
#endif  // HWY_TARGET <= HWY_AVX2

#if HWY_ONCE
namespace nibble {
namespace {

// Tiles that pass over a block of K of all rows before the next block, so that
// the rows' activations are read from L2 for all but the first of them. 2, 4
// and 8 measure alike.
constexpr int64_t kTilesPerCall = 4;
// Of integers, decoded one after the other.
constexpr int64_t kRecordsPerCall = 2;

// A block of K of one record: 32 and 16 KiB.
int64_t F32Scratch(const PackedLayout& /*layout*/, int64_t /*rows*/) {
  return kBlockInputs * kRecordOutputs * sizeof(float);
}
int64_t BF16Scratch(const PackedLayout& /*layout*/, int64_t /*rows*/) {
  return kBlockInputs * kRecordOutputs * sizeof(BF16);
}

// clang-format off
#define NIBBLE_ROW(name, weights, as, panel, space, policy, multiply,          \
                   records, scratch, isa, target)                              \
  {name, WeightFormat::weights, WeightFormat::as, DType::panel, isa, target,   \
   space::FloatKernels::kRows, records,                                        \
   space::FloatKernels::multiply<space::FloatKernels::policy>, scratch}
// Weights of f32 and bf16, and integers decoded to them.
#define NIBBLE_WIDEN_ROWS(suffix, space, isa, target)                          \
  NIBBLE_ROW("f32_" suffix, kF32, kF32, kF32, space, F32, kFloats,             \
             kTilesPerCall, nullptr, isa, target),                             \
  NIBBLE_ROW("bf16_" suffix, kBF16, kBF16, kF32, space, BF16, kFloats,         \
             kTilesPerCall, nullptr, isa, target),                             \
  NIBBLE_ROW("int8_f32_" suffix, kInt8, kF32, kF32, space, F32, kIntegers,     \
             kRecordsPerCall, &F32Scratch, isa, target),                       \
  NIBBLE_ROW("int8_bf16_" suffix, kInt8, kBF16, kF32, space, BF16, kIntegers,  \
             kRecordsPerCall, &BF16Scratch, isa, target),                      \
  NIBBLE_ROW("int4_f32_" suffix, kInt4, kF32, kF32, space, F32, kIntegers,     \
             kRecordsPerCall, &F32Scratch, isa, target),                       \
  NIBBLE_ROW("int4_bf16_" suffix, kInt4, kBF16, kF32, space, BF16, kIntegers,  \
             kRecordsPerCall, &BF16Scratch, isa, target)
// Those that VDPBF16PS multiplies.
#define NIBBLE_DOT_ROWS(suffix, space, isa, target)                            \
  NIBBLE_ROW("bf16_dot_" suffix, kBF16, kBF16, kBF16, space, BF16Dot, kFloats, \
             kTilesPerCall, nullptr, isa, target),                             \
  NIBBLE_ROW("int8_bf16_dot_" suffix, kInt8, kBF16, kBF16, space, BF16Dot,     \
             kIntegers, kRecordsPerCall, &BF16Scratch, isa, target),           \
  NIBBLE_ROW("int4_bf16_dot_" suffix, kInt4, kBF16, kBF16, space, BF16Dot,     \
             kIntegers, kRecordsPerCall, &BF16Scratch, isa, target)

constexpr MatMulKernel kKernels[] = {
#if HWY_TARGETS & HWY_AVX2
    NIBBLE_WIDEN_ROWS("avx2", N_AVX2, Isa::kAvx2, HWY_AVX2),
#endif
#if HWY_TARGETS & HWY_AVX3
    NIBBLE_WIDEN_ROWS("avx512", N_AVX3, Isa::kAvx512, HWY_AVX3),
#endif
#if HWY_TARGETS & HWY_AVX3_DL
    NIBBLE_WIDEN_ROWS("avx512_dl", N_AVX3_DL, Isa::kAvx512Vnni, HWY_AVX3_DL),
#endif
#if HWY_TARGETS & HWY_AVX3_ZEN4
    NIBBLE_WIDEN_ROWS("avx512_zen4", N_AVX3_ZEN4, Isa::kAvx512Vnni,
                      HWY_AVX3_ZEN4),
    NIBBLE_DOT_ROWS("avx512_zen4", N_AVX3_ZEN4, Isa::kAvx512Vnni,
                    HWY_AVX3_ZEN4),
#endif
#if HWY_TARGETS & HWY_AVX3_SPR
    NIBBLE_WIDEN_ROWS("avx512_spr", N_AVX3_SPR, Isa::kAvx512Vnni,
                      HWY_AVX3_SPR),
    NIBBLE_DOT_ROWS("avx512_spr", N_AVX3_SPR, Isa::kAvx512Vnni, HWY_AVX3_SPR),
#endif
};
// clang-format on

}  // namespace

absl::Span<const MatMulKernel> HighwayMatMulKernels() { return kKernels; }

}  // namespace nibble
#endif  // HWY_ONCE
