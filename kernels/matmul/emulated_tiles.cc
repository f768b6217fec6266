#include "kernels/matmul/emulated_tiles.h"

#include <cmath>
#include <cstring>

#include "absl/log/check.h"

namespace nibble {
namespace {

thread_local TileCounts counts;

void CheckConfigured(const TileShapes& shapes, int tile) {
  CHECK(shapes.rows[tile] != 0) << "tile " << tile << " is not configured";
}

// What both multiplies ask of their operands.
void CheckFit(const TileShapes& shapes, int sums, int a, int b) {
  for (int tile : {sums, a, b}) CheckConfigured(shapes, tile);
  CHECK_EQ(shapes.rows[a], shapes.rows[sums]) << "rows of a and the sums";
  CHECK_EQ(shapes.row_bytes[b], shapes.row_bytes[sums])
      << "columns of b and the sums";
  CHECK_EQ(shapes.row_bytes[a], 4 * shapes.rows[b]) << "k of a and b";
}

// Subnormal numbers count as zero, as TDPBF16PS takes them.
float Flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value)
                                                : value;
}

float BF16At(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return Flushed(value);
}

}  // namespace

EmulatedTiles::~EmulatedTiles() { ++counts.releases; }

void EmulatedTiles::Configure(const TileShapes& shapes) {
  CHECK_EQ(shapes.palette, 1);
  CHECK_EQ(shapes.start_row, 0);
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = shapes.rows[tile], row_bytes = shapes.row_bytes[tile];
    CHECK(rows <= (tile < kTiles ? kTileMaxRows : 0));
    CHECK(row_bytes <= (tile < kTiles ? kTileRowBytes : 0));
    CHECK_EQ(rows == 0, row_bytes == 0) << "of tile " << tile;
  }
  shapes_ = shapes;
  std::memset(tiles_, 0, sizeof(tiles_));
  ++counts.configurations;
}

void EmulatedTiles::ZeroTile(int tile) {
  CheckConfigured(shapes_, tile);
  std::memset(tiles_[tile], 0, sizeof(tiles_[tile]));
  ++counts.zeros;
}

void EmulatedTiles::LoadTile(int tile, const void* rows, int64_t stride_bytes) {
  CheckConfigured(shapes_, tile);
  std::memset(tiles_[tile], 0, sizeof(tiles_[tile]));
  const auto* from = static_cast<const uint8_t*>(rows);
  for (int row = 0; row < shapes_.rows[tile]; ++row) {
    std::memcpy(tiles_[tile][row], from + row * stride_bytes,
                shapes_.row_bytes[tile]);
  }
  ++counts.loads;
}

void EmulatedTiles::StoreTile(int tile, void* rows,
                              int64_t stride_bytes) const {
  CheckConfigured(shapes_, tile);
  auto* to = static_cast<uint8_t*>(rows);
  for (int row = 0; row < shapes_.rows[tile]; ++row) {
    std::memcpy(to + row * stride_bytes, tiles_[tile][row],
                shapes_.row_bytes[tile]);
  }
  ++counts.stores;
}

void EmulatedTiles::MultiplyI8(int sums, int a, int b) {
  CheckFit(shapes_, sums, a, b);
  const int columns = shapes_.row_bytes[sums] / 4;
  for (int row = 0; row < shapes_.rows[sums]; ++row) {
    int32_t totals[kTileRowBytes / 4];
    std::memcpy(totals, tiles_[sums][row], sizeof(totals));
    for (int j = 0; j < shapes_.rows[b]; ++j) {
      const auto* as = reinterpret_cast<const int8_t*>(tiles_[a][row]) + 4 * j;
      const auto* bs = reinterpret_cast<const int8_t*>(tiles_[b][j]);
      for (int n = 0; n < columns; ++n) {
        // At most 2^17 each; the sums wrap around, as the instruction's do.
        const int32_t product = as[0] * bs[4 * n] + as[1] * bs[4 * n + 1] +
                                as[2] * bs[4 * n + 2] + as[3] * bs[4 * n + 3];
        totals[n] = static_cast<int32_t>(static_cast<uint32_t>(totals[n]) +
                                         static_cast<uint32_t>(product));
      }
    }
    std::memcpy(tiles_[sums][row], totals, sizeof(totals));
  }
  ++counts.i8_multiplies;
}

void EmulatedTiles::MultiplyBF16(int sums, int a, int b) {
  CheckFit(shapes_, sums, a, b);
  const int columns = shapes_.row_bytes[sums] / 4;
  for (int row = 0; row < shapes_.rows[sums]; ++row) {
    float totals[kTileRowBytes / 4];
    std::memcpy(totals, tiles_[sums][row], sizeof(totals));
    for (int n = 0; n < columns; ++n) {
      // Even and odd k are summed apart, then added to what was there.
      float even = 0.0f, odd = 0.0f;
      for (int j = 0; j < shapes_.rows[b]; ++j) {
        const uint8_t* as = tiles_[a][row] + 4 * j;
        const uint8_t* bs = tiles_[b][j] + 4 * n;
        even = Flushed(std::fma(BF16At(as), BF16At(bs), even));
        odd = Flushed(std::fma(BF16At(as + 2), BF16At(bs + 2), odd));
      }
      totals[n] = Flushed(Flushed(totals[n]) + Flushed(even + odd));
    }
    std::memcpy(tiles_[sums][row], totals, sizeof(totals));
  }
  ++counts.bf16_multiplies;
}

TileCounts EmulatedTiles::TakeCounts() {
  const TileCounts taken = counts;
  counts = TileCounts();
  return taken;
}

}  // namespace nibble
