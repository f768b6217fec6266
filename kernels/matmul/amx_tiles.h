// The tile policy that runs AMX instructions; tile_shapes.h says what a policy
// offers. REQUIRES: CpuSupports(Isa::kAmx), or the first instruction is SIGILL.
//
// The instructions are written as assembly, because the compilers' intrinsics
// want their tile numbers as literals, which a template parameter is not, and
// GCC's say nothing of the memory they touch: a compiler may then move ordinary
// stores across them. The clobbers here keep loads and stores in their order;
// values in registers stay there.
#ifndef NIBBLE_KERNELS_MATMUL_AMX_TILES_H_
#define NIBBLE_KERNELS_MATMUL_AMX_TILES_H_

#include <cstdint>

#include "kernels/matmul/tile_shapes.h"

#if defined(__x86_64__)
#define NIBBLE_TILE_ASM(...) __asm__ volatile(__VA_ARGS__)
#else  // Never run: there is no kAmx.
#define NIBBLE_TILE_ASM(...) static_cast<void>(0)
#endif

namespace nibble {

class AmxTiles {
 public:
  explicit AmxTiles(const TileShapes& shapes) { Configure(shapes); }
  ~AmxTiles() { NIBBLE_TILE_ASM("tilerelease" ::: "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  void Configure(const TileShapes& shapes) {
    NIBBLE_TILE_ASM("ldtilecfg %0" ::"m"(shapes) : "memory");
  }

  template <int tile>
  void Zero() {
    static_assert(0 <= tile && tile < kTiles);
    NIBBLE_TILE_ASM("tilezero %%tmm%c0" ::"i"(tile));
  }

  template <int tile>
  void Load(const void* rows, int64_t stride_bytes) {
    static_assert(0 <= tile && tile < kTiles);
    NIBBLE_TILE_ASM("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows),
                    "r"(stride_bytes), "i"(tile)
                    : "memory");
  }

  template <int tile>
  void Store(void* rows, int64_t stride_bytes) const {
    static_assert(0 <= tile && tile < kTiles);
    NIBBLE_TILE_ASM("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows),
                    "r"(stride_bytes), "i"(tile)
                    : "memory");
  }

  template <int sums, int a, int b>
  void DotI8() {
    static_assert(sums != a && sums != b && a != b);
    // AT&T order: the destination last, b before a.
    NIBBLE_TILE_ASM("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a),
                    "i"(b));
  }

  template <int sums, int a, int b>
  void DotBF16() {
    static_assert(sums != a && sums != b && a != b);
    NIBBLE_TILE_ASM("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums),
                    "i"(a), "i"(b));
  }
};

}  // namespace nibble

#undef NIBBLE_TILE_ASM

#endif  // NIBBLE_KERNELS_MATMUL_AMX_TILES_H_
