#include "kernels/matmul/pack_codes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

uint8_t ByteAt(const PackedMatrix& w, int64_t offset) {
  return static_cast<uint8_t>(w.data()[offset]);
}

// As packed_layout.h draws them, byte by byte.
TEST(PackCodes, LaysOutInt4) {
  const PackedLayout layout = *PackedLayout::Create(WeightFormat::kInt4, 40, 72,
                                                    32, /*symmetric=*/false);
  const IntegerMatrix m = RandomIntegers(layout, 1);
  const PackedMatrix w = m.Pack();
  ASSERT_EQ(w.bytes(), static_cast<size_t>(layout.bytes()));
  for (int64_t n = 0; n < layout.outputs; ++n) {
    const int64_t record = n / 32 * layout.record_bytes();
    const int64_t tile = n % 32 / 16, c = n % 16;
    for (int64_t k = 0; k < layout.inputs; ++k) {
      const uint8_t byte =
          ByteAt(w, record + layout.codes_offset() + k / 8 * 128 + tile * 64 +
                        4 * c + k % 4);
      EXPECT_EQ(k % 8 < 4 ? byte & 15 : byte >> 4, m.codes[n * 72 + k]);
    }
    for (int64_t g = 0; g < 3; ++g) {
      F16 scale;
      std::memcpy(&scale, w.data() + record + (g * 32 + n % 32) * 2, 2);
      EXPECT_EQ(ToFloat(scale), m.scales[n * 3 + g]);
      const uint8_t pair =
          ByteAt(w, record + layout.zeros_offset() + g * 16 + c);
      EXPECT_EQ(tile == 0 ? pair & 15 : pair >> 4, m.zeros[n * 3 + g]);
    }
  }
}

TEST(PackCodes, LaysOutInt8WithWideScales) {
  const PackedLayout layout =
      *PackedLayout::Create(WeightFormat::kInt8, 20, 70, 64, /*symmetric=*/true,
                            /*wide_scales=*/true);
  const IntegerMatrix m = RandomIntegers(layout, 1);
  const PackedMatrix w = m.Pack();
  for (int64_t n = 0; n < layout.outputs; ++n) {
    for (int64_t k = 0; k < layout.inputs; ++k) {
      EXPECT_EQ(ByteAt(w, layout.codes_offset() + k / 4 * 128 + n / 16 * 64 +
                              4 * (n % 16) + k % 4),
                m.codes[n * 70 + k]);
    }
    for (int64_t g = 0; g < 2; ++g) {
      float scale;
      std::memcpy(&scale, w.data() + (g * 32 + n) * 4, 4);
      EXPECT_EQ(scale, m.scales[n * 2 + g]);
    }
  }
}

TEST(PackCodes, LaysOutMinimumsBehindTheScales) {
  for (const bool wide : {false, true}) {
    const PackedLayout layout = LayoutWithMinimums(40, 72, 32, wide);
    const IntegerMatrix m = RandomIntegers(layout, 1);
    const PackedMatrix w = m.Pack();
    for (int64_t i = 0; i < 40 * 3; ++i) {
      const int64_t n = i / 3, g = i % 3;
      const std::byte* at = w.data() + n / 32 * layout.record_bytes() +
                            (3 * 32 + g * 32 + n % 32) * (wide ? 4 : 2);
      F16 narrow;
      std::memcpy(&narrow, at, sizeof(narrow));
      float minimum;
      std::memcpy(&minimum, at, wide ? sizeof(minimum) : 0);
      EXPECT_EQ(wide ? minimum : ToFloat(narrow), m.minimums[i]);
    }
    for (int64_t k = 0; k < 72; ++k) {
      const uint8_t byte =
          ByteAt(w, layout.codes_offset() + k / 8 * 128 + 64 + k % 4);
      EXPECT_EQ(k % 8 < 4 ? byte & 15 : byte >> 4, m.codes[16 * 72 + k]);
    }
  }
}

TEST(PackCodes, CodesBeyondTheInputsAreZeroWithMinimums) {
  const PackedLayout layout = LayoutWithMinimums(32, 3, 3);
  const PackedMatrix w = RandomIntegers(layout, 1).Pack();
  for (int64_t n = 0; n < 32; ++n) {
    const int64_t at = layout.codes_offset() + n / 16 * 64 + 4 * (n % 16);
    EXPECT_EQ(ByteAt(w, at + 3), 0);  // k = 3 and 7
    EXPECT_EQ(ByteAt(w, at) >> 4, 0);
  }
}

TEST(PackCodes, CodesBeyondTheInputsAreTheZeroPoint) {
  for (bool symmetric : {true, false}) {
    const PackedLayout layout =
        *PackedLayout::Create(WeightFormat::kInt4, 32, 3, 3, symmetric);
    const IntegerMatrix m = RandomIntegers(layout, 1);
    const PackedMatrix w = m.Pack();
    for (int64_t n = 0; n < 32; ++n) {
      const int zero = symmetric ? 8 : m.zeros[n];
      const int64_t at = layout.codes_offset() + n / 16 * 64 + 4 * (n % 16);
      EXPECT_EQ(ByteAt(w, at + 3) & 15, zero);  // k = 3
      for (int64_t i = 0; i < 4; ++i) {
        EXPECT_EQ(ByteAt(w, at + i) >> 4, zero);  // k = 4 + i
      }
    }
  }
}

TEST(PackCodes, OutputsBeyondTheMatrixAreZeros) {
  const PackedLayout layout = *PackedLayout::Create(WeightFormat::kInt4, 17, 64,
                                                    32, /*symmetric=*/false);
  // Memory that was something else before.
  AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
  std::fill(memory.data(), memory.data() + memory.size(), std::byte{0xFF});
  const IntegerMatrix m = RandomIntegers(layout, 1);
  PackCodes(layout, 0, 17, {m.codes, m.scales, m.zeros}, memory.data());
  for (int64_t g = 0; g < 2; ++g) {
    for (int64_t n = 17; n < 32; ++n) {
      EXPECT_EQ(memory.data()[(g * 32 + n) * 2], std::byte{0});
      EXPECT_EQ(memory.data()[layout.zeros_offset() + g * 16 + n - 16] >> 4,
                std::byte{0});
    }
  }
}

TEST(PackCodes, SlabsGiveTheMatrix) {
  for (const PackedLayout& layout :
       {*PackedLayout::Create(WeightFormat::kInt4, 100, 96, 32,
                              /*symmetric=*/false),
        LayoutWithMinimums(100, 96, 32)}) {
    const IntegerMatrix m = RandomIntegers(layout, 1);
    const PackedMatrix whole = m.Pack();
    AlignedBuffer memory(static_cast<size_t>(layout.bytes()));
    const CodedRows all = {m.codes, m.scales, m.zeros, m.minimums};
    for (int64_t first = 0; first < 100; first += 64) {
      const int64_t rows = std::min<int64_t>(64, 100 - first);
      CodedRows slab = {all.codes.subspan(first * 96, rows * 96),
                        all.scales.subspan(first * 3, rows * 3),
                        {}};
      if (layout.has_zeros()) {
        slab.zeros = all.zeros.subspan(first * 3, rows * 3);
      } else {
        slab.minimums = all.minimums.subspan(first * 3, rows * 3);
      }
      PackCodes(layout, first, rows, slab, memory.data());
    }
    EXPECT_EQ(std::memcmp(memory.data(), whole.data(), whole.bytes()), 0);
  }
}

TEST(DequantizeRow, ReadsEveryIntegerExactly) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (bool wide_scales : {false, true}) {
      for (int64_t inputs : {1, 9, 64, 130}) {
        const IntegerMatrix m = RandomIntegers(
            *PackedLayout::Create(format, 37, inputs, 64,
                                  format == WeightFormat::kInt8, wide_scales),
            1);
        const PackedMatrix w = m.Pack();
        std::vector<float> row(static_cast<size_t>(inputs));
        for (int64_t n = 0; n < 37; ++n) {
          DequantizeRow(w, n, absl::MakeSpan(row));
          for (int64_t k = 0; k < inputs; ++k) {
            ASSERT_EQ(row[k], m.Weight(n, k)) << n << " " << k;
          }
        }
      }
    }
  }
}

TEST(DequantizeRow, RoundsCodesWithMinimumsOnce) {
  for (const bool wide : {false, true}) {
    for (int64_t inputs : {1, 9, 64, 130}) {
      const IntegerMatrix m =
          RandomIntegers(LayoutWithMinimums(37, inputs, 64, wide), 1);
      const PackedMatrix w = m.Pack();
      std::vector<float> row(static_cast<size_t>(inputs));
      for (int64_t n = 0; n < 37; ++n) {
        DequantizeRow(w, n, absl::MakeSpan(row));
        for (int64_t k = 0; k < inputs; ++k) {
          const int64_t group = n * m.layout.groups() + k / 64;
          const float code = m.codes[n * inputs + k];
          ASSERT_EQ(row[k], std::fma(m.scales[group], code, m.minimums[group]));
        }
      }
    }
  }
}

TEST(DequantizeRow, ReadsFloatsAsTheyWerePacked) {
  ThreadPool pool(1);
  const std::vector<float> values = RoundedToBF16(RandomValues(20 * 7, 1));
  for (WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16}) {
    const PackedMatrix w = Pack(values, 20, 7, format, pool);
    std::vector<float> row(7);
    for (int64_t n = 0; n < 20; ++n) {
      DequantizeRow(w, n, absl::MakeSpan(row));
      EXPECT_TRUE(std::equal(row.begin(), row.end(), values.begin() + n * 7));
    }
  }
}

TEST(PackedMatrix, AViewReadsTheMemoryOfAnother) {
  const IntegerMatrix m =
      RandomIntegers(*PackedLayout::Create(WeightFormat::kInt4, 32, 64, 32), 1);
  const PackedMatrix owner = m.Pack();
  const PackedMatrix view = PackedMatrix::View(owner.layout(), owner.data());
  EXPECT_EQ(view.data(), owner.data());
  EXPECT_EQ(view.bytes(), owner.bytes());
  EXPECT_EQ(PackedMatrix().bytes(), 0u);
}

}  // namespace
}  // namespace nibble
