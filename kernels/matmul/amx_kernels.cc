#include "kernels/matmul/amx_kernels.h"

#include "absl/types/span.h"
#include "kernels/cpu.h"
#include "kernels/matmul/amx_tiles.h"
#include "kernels/matmul/emulated_tiles.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"

// The vector instructions between those on tiles are AVX-512's first: one
// target serves both policies.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/amx_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

#if HWY_TARGET == HWY_AVX3
#include "kernels/matmul/amx_bf16-inl.h"
#include "kernels/matmul/amx_int8-inl.h"
#endif

#if HWY_ONCE
namespace nibble {
namespace {

#if HWY_TARGETS & HWY_AVX3
// Rows of activations per group: those of a tile.
constexpr int64_t kMaxRows = kTileMaxRows;
// Fewer rows of int8 activations go to the instructions without tiles, which
// give the same bits: they multiply up to 13 rows in the time that the weights
// take from memory, and how well these use the bandwidth has been measured.
// docs/amx.md counts.
constexpr int64_t kMinRows = 9;
// Records that share a block of activations while it is in L2. Their totals
// take 256 KiB at 512 rows.
constexpr int64_t kRecordsPerCall = 4;

#define NIBBLE_AMX_INT8_ROW(name, weights, isa, tiles)                     \
  {                                                                        \
    name, weights, weights, DType::kI8, isa, 0, kMaxRows, kRecordsPerCall, \
        &N_AVX3::MultiplyInt8<tiles>, &N_AVX3::Int8ScratchBytes, kMinRows  \
  }
#define NIBBLE_AMX_BF16_ROW(name, weights, isa, tiles)                  \
  {                                                                     \
    name, weights, WeightFormat::kBF16, DType::kBF16, isa, 0, kMaxRows, \
        weights == WeightFormat::kBF16 ? 2 * kRecordsPerCall            \
                                       : kRecordsPerCall,               \
        &N_AVX3::MultiplyBF16<tiles>, &N_AVX3::BF16ScratchBytes         \
  }
#define NIBBLE_AMX_ROWS(suffix, isa, tiles)                                  \
  NIBBLE_AMX_BF16_ROW("bf16_dot_" suffix, WeightFormat::kBF16, isa, tiles),  \
      NIBBLE_AMX_BF16_ROW("int8_bf16_dot_" suffix, WeightFormat::kInt8, isa, \
                          tiles),                                            \
      NIBBLE_AMX_BF16_ROW("int4_bf16_dot_" suffix, WeightFormat::kInt4, isa, \
                          tiles),                                            \
      NIBBLE_AMX_INT8_ROW("int8_int8_" suffix, WeightFormat::kInt8, isa,     \
                          tiles),                                            \
      NIBBLE_AMX_INT8_ROW("int4_int8_" suffix, WeightFormat::kInt4, isa,     \
                          tiles)

constexpr MatMulKernel kKernels[] = {
    NIBBLE_AMX_ROWS("emulated_amx", Isa::kEmulatedAmx, EmulatedTiles),
    NIBBLE_AMX_ROWS("amx", Isa::kAmx, AmxTiles),
};
#endif

}  // namespace

absl::Span<const MatMulKernel> AmxMatMulKernels() {
#if HWY_TARGETS & HWY_AVX3
  return kKernels;
#else
  return {};
#endif
}

}  // namespace nibble
#endif  // HWY_ONCE
