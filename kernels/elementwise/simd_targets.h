// Which of Highway's targets a kernel file compiles. Include it before any
// Highway header; simd_rows.h names the compiled targets in a table.
//
// f32 kernels gain nothing from the targets disabled here: they lack FMA, or
// differ from AVX3 in instructions for narrow types only. Processors without
// AVX2 run the scalar rows.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_SIMD_TARGETS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_SIMD_TARGETS_H_

// The build's flags disable the first two for all of nibble.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)

#endif  // NIBBLE_KERNELS_ELEMENTWISE_SIMD_TARGETS_H_
