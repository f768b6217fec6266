#include "kernels/matmul/kernels_hwy.h"

#include "kernels/cpu.h"
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

// clang-format off
#define NIBBLE_WIDEN_ROWS(suffix, space, isa, target)                       \
  {"f32_" suffix, WeightFormat::kF32, DType::kF32, isa, target,                    \
   space::kRowsPerGroup, space::kMultiplyF32},                              \
  {"bf16_" suffix, WeightFormat::kBF16, DType::kF32, isa, target,                  \
   space::kRowsPerGroup, space::kMultiplyBF16}
#define NIBBLE_DOT_ROW(suffix, space, isa, target)                          \
  {"bf16_dot_" suffix, WeightFormat::kBF16, DType::kBF16, isa, target,             \
   space::kRowsPerGroup, space::kMultiplyBF16Dot}

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
    NIBBLE_DOT_ROW("avx512_zen4", N_AVX3_ZEN4, Isa::kAvx512Vnni,
                   HWY_AVX3_ZEN4),
#endif
#if HWY_TARGETS & HWY_AVX3_SPR
    NIBBLE_WIDEN_ROWS("avx512_spr", N_AVX3_SPR, Isa::kAvx512Vnni,
                      HWY_AVX3_SPR),
    NIBBLE_DOT_ROW("avx512_spr", N_AVX3_SPR, Isa::kAvx512Vnni, HWY_AVX3_SPR),
#endif
};
// clang-format on

}  // namespace

absl::Span<const MatMulKernel> HighwayMatMulKernels() { return kKernels; }

}  // namespace nibble
#endif  // HWY_ONCE
