#include "kernels/matmul/int8_kernels_hwy.h"

#include "kernels/cpu.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

// Two targets, of 256 and 512 bits: what the others add is not used here, and
// VPDPBUSD is written in assembly.
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/int8_kernels_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

// Below AVX2 the scalar reference serves.
#if HWY_TARGET <= HWY_AVX2
#include "kernels/matmul/int8_multiply-inl.h"
#endif  // HWY_TARGET <= HWY_AVX2

#if HWY_ONCE
namespace nibble {
namespace {

// clang-format off
#define NIBBLE_ROW(name, format, space, isa, kernel)                          \
  {name, WeightFormat::format, WeightFormat::format, DType::kI8, isa, 0,      \
   space::kernel::kRows, space::kInt8RecordsPerCall,                          \
   space::kernel::kMultiply, &space::kernel::Scratch}

constexpr MatMulKernel kKernels[] = {
#if HWY_TARGETS & HWY_AVX2
    NIBBLE_ROW("int8_int8_avx2", kInt8, N_AVX2, Isa::kAvx2, Int8Maddubs),
    NIBBLE_ROW("int4_int8_avx2", kInt4, N_AVX2, Isa::kAvx2, Int4Maddubs),
    NIBBLE_ROW("int8_int8_avx_vnni", kInt8, N_AVX2, Isa::kAvxVnni, Int8Vnni),
    NIBBLE_ROW("int4_int8_avx_vnni", kInt4, N_AVX2, Isa::kAvxVnni, Int4Vnni),
#endif
#if HWY_TARGETS & HWY_AVX3
    NIBBLE_ROW("int8_int8_avx512", kInt8, N_AVX3, Isa::kAvx512, Int8Maddubs),
    NIBBLE_ROW("int4_int8_avx512", kInt4, N_AVX3, Isa::kAvx512, Int4Maddubs),
    NIBBLE_ROW("int8_int8_avx512_vnni", kInt8, N_AVX3, Isa::kAvx512Vnni,
               Int8Vnni),
    NIBBLE_ROW("int4_int8_avx512_vnni", kInt4, N_AVX3, Isa::kAvx512Vnni,
               Int4Vnni),
#endif
};
// clang-format on

}  // namespace

absl::Span<const MatMulKernel> Int8MatMulKernels() { return kKernels; }

}  // namespace nibble
#endif  // HWY_ONCE
