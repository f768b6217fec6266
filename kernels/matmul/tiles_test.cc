// Both tile policies against the definition of each instruction, and the real
// one against the emulated one, bit for bit.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/amx_tiles.h"
#include "kernels/matmul/emulated_tiles.h"
#include "kernels/matmul/tile_shapes.h"

namespace nibble {
namespace {

constexpr int kSums = 0, kA = 3, kB = 6;
// Strides that are no multiple of a row, so that mixed-up rows show.
constexpr int64_t kStride = 80;

using TileMemory = std::vector<uint8_t>;  // [16][kStride]

struct DotShape {
  int rows, columns, k_rows;  // k_rows: rows of b
};

constexpr DotShape kShapes[] = {{16, 16, 16}, {1, 16, 16}, {16, 16, 8},
                                {5, 16, 8},   {16, 1, 16}, {15, 3, 1},
                                {1, 1, 1},    {9, 11, 13}};

TileShapes ShapesOf(const DotShape& shape) {
  TileShapes shapes;
  shapes.Set(kSums, shape.rows, 4 * shape.columns);
  shapes.Set(kA, shape.rows, 4 * shape.k_rows);
  shapes.Set(kB, shape.k_rows, 4 * shape.columns);
  return shapes;
}

TileMemory RandomBytes(uint32_t seed) {
  std::mt19937 random(seed);
  TileMemory memory(kTileMaxRows * kStride);
  for (uint8_t& byte : memory) byte = static_cast<uint8_t>(random());
  return memory;
}

// bf16 values, or f32 ones, of magnitudes 2^low to 2^high.
TileMemory RandomFloats(uint32_t seed, bool bf16, int low, int high) {
  std::mt19937 random(seed);
  TileMemory memory(kTileMaxRows * kStride);
  const size_t size = bf16 ? 2 : 4;
  for (size_t i = 0; i < memory.size(); i += size) {
    const uint32_t exponent = 127 + low + random() % (high - low + 1);
    const uint32_t bits = (random() & 0x807FFFFFu) | exponent << 23;
    const uint32_t value = bf16 ? bits >> 16 : bits;
    std::memcpy(&memory[i], &value, size);
  }
  return memory;
}

template <typename T>
T At(const TileMemory& memory, int row, int index) {
  T value;
  std::memcpy(&value, &memory[row * kStride + index * sizeof(T)], sizeof(T));
  return value;
}

float BF16(const TileMemory& memory, int row, int index) {
  const uint32_t bits = uint32_t{At<uint16_t>(memory, row, index)} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

enum class Dot { kI8, kBF16 };

// sums after one multiply.
template <class Tiles>
TileMemory Multiply(Dot dot, const DotShape& shape, TileMemory sums,
                    const TileMemory& a, const TileMemory& b) {
  Tiles tiles(ShapesOf(shape));
  tiles.template Load<kSums>(sums.data(), kStride);
  tiles.template Load<kA>(a.data(), kStride);
  tiles.template Load<kB>(b.data(), kStride);
  if (dot == Dot::kI8) {
    tiles.template DotI8<kSums, kA, kB>();
  } else {
    tiles.template DotBF16<kSums, kA, kB>();
  }
  tiles.template Store<kSums>(sums.data(), kStride);
  return sums;
}

template <class Tiles>
class TilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::is_same_v<Tiles, AmxTiles> && !CpuSupports(Isa::kAmx)) {
      GTEST_SKIP() << AmxStatus().message();
    }
  }
};

struct PolicyName {
  template <class Tiles>
  static std::string GetName(int) {
    return std::is_same_v<Tiles, AmxTiles> ? "Amx" : "Emulated";
  }
};
using Policies = ::testing::Types<EmulatedTiles, AmxTiles>;
TYPED_TEST_SUITE(TilesTest, Policies, PolicyName);

TYPED_TEST(TilesTest, LoadsAndStoresOnlyTheConfiguredRowsAndBytes) {
  TileShapes shapes;
  shapes.Set(3, 9, 24);
  shapes.Set(7, 16, 64);
  TypeParam tiles(shapes);
  const TileMemory in = RandomBytes(1);
  TileMemory out(in.size(), 0xAA);
  tiles.template Load<3>(in.data(), kStride);
  tiles.template Store<3>(out.data(), kStride);
  for (int row = 0; row < kTileMaxRows; ++row) {
    for (int byte = 0; byte < kStride; ++byte) {
      const uint8_t want =
          row < 9 && byte < 24 ? At<uint8_t>(in, row, byte) : 0xAA;
      ASSERT_EQ(At<uint8_t>(out, row, byte), want) << row << ", " << byte;
    }
  }
  tiles.template Load<7>(in.data(), kStride);
  tiles.template Zero<7>();
  tiles.template Store<7>(out.data(), kStride);
  for (int row = 0; row < kTileMaxRows; ++row) {
    for (int byte = 0; byte < kTileRowBytes; ++byte) {
      ASSERT_EQ(At<uint8_t>(out, row, byte), 0);
    }
  }
}

TYPED_TEST(TilesTest, ConfiguringAgainZeroesTheTiles) {
  TileShapes shapes;
  shapes.Set(2, 16, 64);
  TypeParam tiles(shapes);
  tiles.template Load<2>(RandomBytes(1).data(), kStride);
  tiles.Configure(shapes);
  TileMemory out(kTileMaxRows * kStride, 0xAA);
  tiles.template Store<2>(out.data(), kStride);
  for (int row = 0; row < kTileMaxRows; ++row) {
    for (int byte = 0; byte < kTileRowBytes; ++byte) {
      ASSERT_EQ(At<uint8_t>(out, row, byte), 0);
    }
  }
}

TYPED_TEST(TilesTest, MultipliesSignedBytesExactly) {
  uint32_t seed = 10;
  for (const DotShape& shape : kShapes) {
    const TileMemory a = RandomBytes(seed++), b = RandomBytes(seed++);
    const TileMemory sums = RandomBytes(seed++);
    const TileMemory got = Multiply<TypeParam>(Dot::kI8, shape, sums, a, b);
    for (int m = 0; m < shape.rows; ++m) {
      for (int n = 0; n < shape.columns; ++n) {
        int64_t want = At<int32_t>(sums, m, n);
        for (int k = 0; k < 4 * shape.k_rows; ++k) {
          want += At<int8_t>(a, m, k) * At<int8_t>(b, k / 4, 4 * n + k % 4);
        }
        // Random sums may wrap around.
        ASSERT_EQ(At<int32_t>(got, m, n), static_cast<int32_t>(want));
      }
    }
  }
}

TYPED_TEST(TilesTest, SignedBytesReachTheirExtremes) {
  const TileMemory lowest(kTileMaxRows * kStride, 0x80);  // -128
  const TileMemory zeros(kTileMaxRows * kStride, 0);
  const TileMemory got =
      Multiply<TypeParam>(Dot::kI8, kShapes[0], zeros, lowest, lowest);
  EXPECT_EQ(At<int32_t>(got, 15, 15), 64 * 128 * 128);
}

TYPED_TEST(TilesTest, MultipliesBF16WithinRounding) {
  uint32_t seed = 50;
  for (const DotShape& shape : kShapes) {
    const TileMemory a = RandomFloats(seed++, true, -3, 3);
    const TileMemory b = RandomFloats(seed++, true, -3, 3);
    const TileMemory sums = RandomFloats(seed++, false, -3, 3);
    const TileMemory got = Multiply<TypeParam>(Dot::kBF16, shape, sums, a, b);
    for (int m = 0; m < shape.rows; ++m) {
      for (int n = 0; n < shape.columns; ++n) {
        double want = At<float>(sums, m, n), magnitude = std::abs(want);
        for (int k = 0; k < 2 * shape.k_rows; ++k) {
          const double product =
              double{BF16(a, m, k)} * BF16(b, k / 2, 2 * n + k % 2);
          want += product;
          magnitude += std::abs(product);
        }
        // At most k_rows + 2 roundings, of half a unit in the last place each.
        const double bound = (shape.k_rows + 2) * 0x1p-24 * 1.01 * magnitude;
        ASSERT_NEAR(At<float>(got, m, n), want, bound);
      }
    }
  }
}

TYPED_TEST(TilesTest, BF16InfinitiesAndNaNsStayInTheirRowAndColumn) {
  TileMemory a = RandomFloats(1, true, 0, 3), b = RandomFloats(2, true, 0, 3);
  const TileMemory sums(kTileMaxRows * kStride, 0);
  const uint16_t infinity = 0x7F80, nan = 0x7FC0;
  std::memcpy(&a[2 * kStride + 10], &infinity, 2);  // row 2
  std::memcpy(&b[3 * kStride + 4 * 7], &nan, 2);    // column 7
  const TileMemory got =
      Multiply<TypeParam>(Dot::kBF16, kShapes[0], sums, a, b);
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      const float value = At<float>(got, m, n);
      EXPECT_EQ(std::isnan(value), n == 7);
      if (n != 7) {
        EXPECT_EQ(std::isinf(value), m == 2);
      }
    }
  }
}

TEST(EmulatedTilesTest, EqualAmxTilesBitForBit) {
  if (!CpuSupports(Isa::kAmx)) GTEST_SKIP() << AmxStatus().message();
  uint32_t seed = 100;
  for (const DotShape& shape : kShapes) {
    // The last range reaches below f32's normal numbers.
    for (const auto& [low, high] :
         {std::pair(-3, 3), std::pair(-30, 30), std::pair(-75, -50)}) {
      const TileMemory a = RandomFloats(seed++, true, low, high);
      const TileMemory b = RandomFloats(seed++, true, low, high);
      const TileMemory sums = RandomFloats(seed++, false, 2 * low + 26, high);
      EXPECT_EQ(Multiply<EmulatedTiles>(Dot::kBF16, shape, sums, a, b),
                Multiply<AmxTiles>(Dot::kBF16, shape, sums, a, b));
    }
    const TileMemory a = RandomBytes(seed++), b = RandomBytes(seed++);
    const TileMemory sums = RandomBytes(seed++);
    EXPECT_EQ(Multiply<EmulatedTiles>(Dot::kI8, shape, sums, a, b),
              Multiply<AmxTiles>(Dot::kI8, shape, sums, a, b));
  }
}

TEST(EmulatedTilesTest, CountsInstructionsOfTheThread) {
  EmulatedTiles::TakeCounts();
  const TileMemory memory = RandomBytes(1);
  Multiply<EmulatedTiles>(Dot::kI8, kShapes[0], memory, memory, memory);
  const TileCounts counts = EmulatedTiles::TakeCounts();
  EXPECT_EQ(counts.configurations, 1);
  EXPECT_EQ(counts.releases, 1);
  EXPECT_EQ(counts.loads, 3);
  EXPECT_EQ(counts.stores, 1);
  EXPECT_EQ(counts.i8_multiplies, 1);
  EXPECT_EQ(counts.bf16_multiplies, 0);
  EXPECT_EQ(EmulatedTiles::TakeCounts().loads, 0);
}

TEST(EmulatedTilesDeathTest, RefusesWhatTheHardwareWould) {
  TileShapes shapes = ShapesOf({16, 16, 16});
  shapes.Set(1, 8, 64);
  EXPECT_DEATH(EmulatedTiles(shapes).Zero<2>(), "not configured");
  EXPECT_DEATH((EmulatedTiles(shapes).DotI8<1, kA, kB>()), "rows of a");
  EXPECT_DEATH((EmulatedTiles(shapes).DotI8<kSums, kA, 1>()), "k of a and b");
  shapes.Set(4, 17, 64);
  EXPECT_DEATH(EmulatedTiles{shapes}, "rows");
  shapes.Set(4, 4, 0);
  EXPECT_DEATH(EmulatedTiles{shapes}, "of tile 4");
}

}  // namespace
}  // namespace nibble
