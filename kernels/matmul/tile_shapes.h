// The shapes of AMX tiles: what a tile configuration holds, for real tiles
// (amx_tiles.h) and emulated ones (emulated_tiles.h) alike.
//
// A kernel over tiles is a template over a tile policy. Both policies have:
//
//   explicit Tiles(const TileShapes& shapes);    // configures this thread
//   ~Tiles();                                    // releases
//   void Configure(const TileShapes& shapes);    // again; tiles become zero
//   template <int tile> void Zero();
//   template <int tile> void Load(const void* rows, int64_t stride_bytes);
//   template <int tile> void Store(void* rows, int64_t stride_bytes) const;
//   // sums += a * b. b holds four (two) consecutive k of each column side by
//   // side: row j, bytes 4 n + i is b[4 j + i][n].
//   template <int sums, int a, int b> void DotI8();    // TDPBSSD: int8, int32
//   template <int sums, int a, int b> void DotBF16();  // TDPBF16PS: bf16, f32
//
// Every tile of a DotI8 must fit: a has the rows of sums, b its columns, and
// the row bytes of a are four times the rows of b. A thread has one policy at a
// time; tiles belong to the thread, so one lives inside each parallel region.
#ifndef NIBBLE_KERNELS_MATMUL_TILE_SHAPES_H_
#define NIBBLE_KERNELS_MATMUL_TILE_SHAPES_H_

#include <cstdint>
#include <cstring>

namespace nibble {

inline constexpr int kTiles = 8;
inline constexpr int kTileMaxRows = 16;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileBytes = kTileMaxRows * kTileRowBytes;

// The 64 bytes that LDTILECFG reads ("Intel 64 and IA-32 Architectures Software
// Developer's Manual", volume 2, LDTILECFG).
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0..7; 0: the tile is not used
  uint8_t rows[16] = {};

  void Set(int tile, int64_t tile_rows, int64_t tile_row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
  }
};

static_assert(sizeof(TileShapes) == 64);

// Tiles of either policy that are configured again only when shapes change.
template <class Tiles>
class ShapedTiles {
 public:
  explicit ShapedTiles(const TileShapes& shapes)
      : shapes_(shapes), tiles_(shapes) {}

  void Configure(const TileShapes& shapes) {
    if (std::memcmp(&shapes, &shapes_, sizeof(shapes)) == 0) return;
    shapes_ = shapes;
    tiles_.Configure(shapes_);
  }

  Tiles& get() { return tiles_; }

 private:
  TileShapes shapes_;
  Tiles tiles_;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_TILE_SHAPES_H_
