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
#define NIBBLE_ROWS(suffix, space, isa, int4, int8)                         \
  {"int8_int8_" suffix, WeightFormat::kInt8, WeightFormat::kInt8,           \
   DType::kI8, isa, 0, space::Int8Kernels::kRows,                           \
   space::kInt8RecordsPerCall, space::Int8Kernels::int8,                    \
   &space::Int8Kernels::Scratch},          \
  {"int4_int8_" suffix, WeightFormat::kInt4, WeightFormat::kInt4,           \
   DType::kI8, isa, 0, space::Int8Kernels::kRows,                           \
   space::kInt8RecordsPerCall, space::Int8Kernels::int4,                    \
   &space::Int8Kernels::Scratch}

constexpr MatMulKernel kKernels[] = {
#if HWY_TARGETS & HWY_AVX2
    NIBBLE_ROWS("avx2", N_AVX2, Isa::kAvx2, kInt4, kInt8),
    NIBBLE_ROWS("avx_vnni", N_AVX2, Isa::kAvxVnni, kInt4Vnni, kInt8Vnni),
#endif
#if HWY_TARGETS & HWY_AVX3
    NIBBLE_ROWS("avx512", N_AVX3, Isa::kAvx512, kInt4, kInt8),
    NIBBLE_ROWS("avx512_vnni", N_AVX3, Isa::kAvx512Vnni, kInt4Vnni, kInt8Vnni),
#endif
};
// clang-format on

}  // namespace

absl::Span<const MatMulKernel> Int8MatMulKernels() { return kKernels; }

}  // namespace nibble
#endif  // HWY_ONCE
