// The tile policy in plain C++: kernels over tiles run, and are tested, on
// machines without AMX. tile_shapes.h says what a policy offers.
//
// It keeps the rules that hardware enforces by SIGILL and SIGSEGV: a tile is
// used only while configured, and operands of a multiply fit. Breaking one ends
// the program with a message.
#ifndef NIBBLE_KERNELS_MATMUL_EMULATED_TILES_H_
#define NIBBLE_KERNELS_MATMUL_EMULATED_TILES_H_

#include <cstdint>

#include "kernels/matmul/tile_shapes.h"

namespace nibble {

// Instructions that a thread's emulated tiles have run.
struct TileCounts {
  int64_t configurations = 0;
  int64_t releases = 0;
  int64_t zeros = 0;
  int64_t loads = 0;
  int64_t stores = 0;
  int64_t i8_multiplies = 0;
  int64_t bf16_multiplies = 0;
};

class EmulatedTiles {
 public:
  explicit EmulatedTiles(const TileShapes& shapes) { Configure(shapes); }
  ~EmulatedTiles();
  EmulatedTiles(const EmulatedTiles&) = delete;
  EmulatedTiles& operator=(const EmulatedTiles&) = delete;

  void Configure(const TileShapes& shapes);

  template <int tile>
  void Zero() {
    static_assert(0 <= tile && tile < kTiles);
    ZeroTile(tile);
  }
  template <int tile>
  void Load(const void* rows, int64_t stride_bytes) {
    static_assert(0 <= tile && tile < kTiles);
    LoadTile(tile, rows, stride_bytes);
  }
  template <int tile>
  void Store(void* rows, int64_t stride_bytes) const {
    static_assert(0 <= tile && tile < kTiles);
    StoreTile(tile, rows, stride_bytes);
  }
  template <int sums, int a, int b>
  void DotI8() {
    static_assert(sums != a && sums != b && a != b);
    MultiplyI8(sums, a, b);
  }
  template <int sums, int a, int b>
  void DotBF16() {
    static_assert(sums != a && sums != b && a != b);
    MultiplyBF16(sums, a, b);
  }

  // What this thread has run since the last call.
  static TileCounts TakeCounts();

 private:
  void ZeroTile(int tile);
  void LoadTile(int tile, const void* rows, int64_t stride_bytes);
  void StoreTile(int tile, void* rows, int64_t stride_bytes) const;
  void MultiplyI8(int sums, int a, int b);
  void MultiplyBF16(int sums, int a, int b);

  TileShapes shapes_;
  alignas(64) uint8_t tiles_[kTiles][kTileMaxRows][kTileRowBytes];
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_EMULATED_TILES_H_
