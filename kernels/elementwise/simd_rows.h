// Rows of a table of kernel variants, one per compiled Highway target.
//
//   namespace nibble::HWY_NAMESPACE {
//   NormKernels MakeRow(const char* name, Isa isa) { return {name, isa, ...}; }
//   }
//   #if HWY_ONCE
//   const NormKernels kTable[] = {{"scalar", Isa::kScalar, ...},
//                                 NIBBLE_SIMD_ROWS(MakeRow)};
//
// A build that pins one ISA compiles one target and gets that row alone.
// Include it after Highway, in the file's last pass (HWY_ONCE).
#ifndef NIBBLE_KERNELS_ELEMENTWISE_SIMD_ROWS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_SIMD_ROWS_H_

#include "hwy/highway.h"

#if HWY_TARGETS & HWY_AVX2
#define NIBBLE_AVX2_ROW(MakeRow) N_AVX2::MakeRow("avx2", Isa::kAvx2),
#else
#define NIBBLE_AVX2_ROW(MakeRow)
#endif

#if HWY_TARGETS & HWY_AVX3
#define NIBBLE_AVX512_ROW(MakeRow) N_AVX3::MakeRow("avx512", Isa::kAvx512),
#else
#define NIBBLE_AVX512_ROW(MakeRow)
#endif

#define NIBBLE_SIMD_ROWS(MakeRow) \
  NIBBLE_AVX2_ROW(MakeRow) NIBBLE_AVX512_ROW(MakeRow)

#endif  // NIBBLE_KERNELS_ELEMENTWISE_SIMD_ROWS_H_
