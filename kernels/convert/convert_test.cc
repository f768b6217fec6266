#include "kernels/convert/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr DType kConvertible[] = {
    DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
    DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
    DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
};

// ---- The formats read one element at a time from byte offsets: slow, and
// independent of the structs and loops under test.

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float HalfAt(const uint8_t* at) {
  const int bits = at[0] | at[1] << 8;
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  float value = exponent == 31
                    ? (fraction ? std::nanf("") : HUGE_VALF)
                    : std::ldexp(exponent ? 1024.0f + fraction : fraction,
                                 std::max(exponent, 1) - 25);
  return bits & 0x8000 ? -value : value;
}

int Nibble(const uint8_t* bytes, int i, bool high) {
  return high ? bytes[i] / 16 : bytes[i] % 16;
}

// The six bits that Q4_K and Q5_K keep for sub-block j, in a 12-byte field.
int KScale(const uint8_t* s, int j) {
  return j < 4 ? s[j] % 64 : s[j + 4] % 16 + s[j - 4] / 64 * 16;
}
int KMin(const uint8_t* s, int j) {
  return j < 4 ? s[j + 4] % 64 : s[j + 4] / 16 + s[j] / 64 * 16;
}

// Element i of the block at b.
float Element(DType dtype, const uint8_t* b, int i) {
  const bool upper = i >= 16;  // Of a block of 32.
  const int sub = i / 32;      // Of a super-block.
  const bool odd = sub % 2 == 1;
  const auto fifth = [&](const uint8_t* qh) {
    return (qh[i / 8] >> (i % 8) & 1) * 16;
  };
  switch (dtype) {
    case DType::kF32: {
      float value;
      std::memcpy(&value, b, sizeof(value));
      return value;
    }
    case DType::kF16:
      return HalfAt(b);
    case DType::kBF16: {
      const uint8_t wide[4] = {0, 0, b[0], b[1]};
      float value;
      std::memcpy(&value, wide, sizeof(value));
      return value;
    }
    case DType::kQ4_0:
      return HalfAt(b) * (Nibble(b + 2, i % 16, upper) - 8);
    case DType::kQ4_1:
      return HalfAt(b) * Nibble(b + 4, i % 16, upper) + HalfAt(b + 2);
    case DType::kQ5_0:
      return HalfAt(b) * (Nibble(b + 6, i % 16, upper) + fifth(b + 2) - 16);
    case DType::kQ5_1:
      return HalfAt(b) * (Nibble(b + 8, i % 16, upper) + fifth(b + 4)) +
             HalfAt(b + 2);
    case DType::kQ8_0:
      return HalfAt(b) * (b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256);
    case DType::kQ4_K: {
      const int q = Nibble(b + 16 + sub / 2 * 32, i % 32, odd);
      const float scale = HalfAt(b) * KScale(b + 4, sub);
      return scale * q - HalfAt(b + 2) * KMin(b + 4, sub);
    }
    case DType::kQ5_K: {
      const int q = Nibble(b + 48 + sub / 2 * 32, i % 32, odd) +
                    (b[16 + i % 32] >> sub & 1) * 16;
      const float scale = HalfAt(b) * KScale(b + 4, sub);
      return scale * q - HalfAt(b + 2) * KMin(b + 4, sub);
    }
    case DType::kQ6_K: {
      const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
      const int q = Nibble(b + half * 64 + quarter % 2 * 32, l, quarter >= 2) +
                    (b[128 + half * 32 + l] >> (2 * quarter) & 3) * 16 - 32;
      const uint8_t scale = b[192 + i / 16];
      return HalfAt(b + 208) * (scale < 128 ? scale : scale - 256) * q;
    }
    default:
      ADD_FAILURE() << "no such format";
      return 0;
  }
}

// ---- Inputs.

// Where the f16 fields of a block are, so that most blocks get sane scales.
std::vector<int> HalfOffsets(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
      return {0};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    default:
      return {};
  }
}

// Random bytes in 64-byte aligned memory. Scales are random too in every fourth
// block (infinite and NaN ones among them), and moderate in the others.
AlignedBuffer RandomBlocks(DType dtype, int64_t blocks, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t block_bytes = DTypeBlockBytes(dtype);
  AlignedBuffer bytes(blocks * block_bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes.data()[i] = static_cast<std::byte>(random());
  }
  for (int64_t block = 0; block < blocks; ++block) {
    if (block % 4 == 3) continue;
    for (int offset : HalfOffsets(dtype)) {
      const float scale = static_cast<int>(random() % 2001 - 1000) / 512.0f;
      const F16 half = ToF16(scale);
      std::memcpy(bytes.data() + block * block_bytes + offset, &half, 2);
    }
  }
  return bytes;
}

void ExpectSame(float actual, float expected, int64_t i) {
  if (std::isnan(expected)) {
    ASSERT_TRUE(std::isnan(actual)) << "element " << i << " is " << actual;
  } else {
    ASSERT_EQ(Bits(actual), Bits(expected))
        << "element " << i << " is " << actual << ", not " << expected;
  }
}

// Runs the body once for every ISA of this machine.
class ConvertTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuSupports(GetParam())) {
      GTEST_SKIP() << "this machine lacks " << IsaName(GetParam());
    }
    ASSERT_TRUE(LimitIsa(GetParam()).ok());
  }
  void TearDown() override { (void)LimitIsa(BestIsa()); }
};

INSTANTIATE_TEST_SUITE_P(Isas, ConvertTest,
                         ::testing::Values(Isa::kScalar, Isa::kAvx2,
                                           Isa::kAvx512, Isa::kAvx512Vnni),
                         [](const ::testing::TestParamInfo<Isa>& info) {
                           return std::string(IsaName(info.param));
                         });

// Rows of one block up to several vectors and an odd rest.
TEST_P(ConvertTest, ReadsEveryFormatAsItsDefinitionSays) {
  for (DType dtype : kConvertible) {
    SCOPED_TRACE(DTypeName(dtype));
    const int64_t per_block = DTypeBlockElements(dtype);
    for (int64_t blocks : {1, 2, 3, 7, 16, 17, 33, 70}) {
      const AlignedBuffer bytes = RandomBlocks(dtype, blocks, 17 * blocks);
      const TensorView view{dtype, Shape({blocks * per_block}), bytes.data(),
                            bytes.size()};
      // One more float than needed, to see writes past the end.
      std::vector<float> out(blocks * per_block + 1, 12345.0f);
      ASSERT_TRUE(
          ConvertToF32(view, absl::MakeSpan(out.data(), out.size() - 1)).ok());
      const uint8_t* raw = reinterpret_cast<const uint8_t*>(bytes.data());
      for (int64_t i = 0; i < blocks * per_block; ++i) {
        const uint8_t* block = raw + i / per_block * DTypeBlockBytes(dtype);
        ASSERT_NO_FATAL_FAILURE(ExpectSame(
            out[i], Element(dtype, block, static_cast<int>(i % per_block)), i));
      }
      ASSERT_EQ(out.back(), 12345.0f);
    }
  }
}

TEST_P(ConvertTest, RowsEqualTheWholeTensor) {
  constexpr int64_t kRows = 5;
  for (DType dtype : kConvertible) {
    SCOPED_TRACE(DTypeName(dtype));
    const int64_t columns = 3 * DTypeBlockElements(dtype);
    const AlignedBuffer bytes = RandomBlocks(dtype, kRows * 3, 99);
    const TensorView matrix{dtype, Shape({kRows, columns}), bytes.data(),
                            bytes.size()};
    std::vector<float> whole(kRows * columns), row(columns);
    ASSERT_TRUE(ConvertToF32(matrix, absl::MakeSpan(whole)).ok());
    for (int64_t r = 0; r < kRows; ++r) {
      ASSERT_TRUE(ConvertRowToF32(matrix, r, absl::MakeSpan(row)).ok());
      for (int64_t j = 0; j < columns; ++j) {
        ASSERT_NO_FATAL_FAILURE(ExpectSame(row[j], whole[r * columns + j], j));
      }
    }
  }
}

// Blocks of 18 or 210 bytes start at any even address.
TEST_P(ConvertTest, ReadsBlocksAtTheLeastAlignment) {
  for (DType dtype : kConvertible) {
    SCOPED_TRACE(DTypeName(dtype));
    const int64_t elements = 5 * DTypeBlockElements(dtype);
    const AlignedBuffer bytes = RandomBlocks(dtype, 5, 4);
    AlignedBuffer moved(bytes.size() + 4);
    std::byte* const start = moved.data() + DTypeAlignment(dtype);
    std::memcpy(start, bytes.data(), bytes.size());
    std::vector<float> a(elements), b(elements + 1);
    const Shape shape({elements});
    ASSERT_TRUE(ConvertToF32({dtype, shape, bytes.data(), bytes.size()},
                             absl::MakeSpan(a))
                    .ok());
    // The output starts off a vector boundary, too.
    ASSERT_TRUE(ConvertToF32({dtype, shape, start, bytes.size()},
                             absl::MakeSpan(b).subspan(1))
                    .ok());
    for (int64_t i = 0; i < elements; ++i) {
      ASSERT_NO_FATAL_FAILURE(ExpectSame(b[i + 1], a[i], i));
    }
  }
}

TEST_P(ConvertTest, EmptyTensorsConvertToNothing) {
  for (DType dtype : kConvertible) {
    EXPECT_TRUE(ConvertToF32({dtype, Shape({0}), nullptr, 0}, {}).ok());
  }
}

TEST_P(ConvertTest, NarrowingEqualsTheScalarFunctions) {
  std::mt19937 random(5);
  for (size_t count : {0, 1, 3, 15, 16, 17, 64, 100, 1000}) {
    std::vector<float> in(count);
    for (size_t i = 0; i < count; ++i) {
      const uint32_t bits = random();  // Of every magnitude, NaN included.
      std::memcpy(&in[i], &bits, sizeof(bits));
      // Half of them in the range of f16.
      if (i % 2 == 1) in[i] = static_cast<int>(bits % 20000) / 1e4f - 1.0f;
    }
    std::vector<BF16> bf16(count);
    std::vector<F16> f16(count);
    F32ToBF16(in, absl::MakeSpan(bf16));
    F32ToF16(in, absl::MakeSpan(f16));
    std::vector<float> wide_bf16(count), wide_f16(count);
    BF16ToF32(bf16, absl::MakeSpan(wide_bf16));
    F16ToF32(f16, absl::MakeSpan(wide_f16));
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(bf16[i], ToBF16(in[i])) << in[i];
      ASSERT_EQ(f16[i], ToF16(in[i])) << in[i];
      ASSERT_EQ(Bits(wide_bf16[i]), Bits(ToFloat(bf16[i])));
      ASSERT_EQ(Bits(wide_f16[i]), Bits(ToFloat(f16[i])));
    }
  }
}

TEST_P(ConvertTest, AllFiniteFindsOneBadValueAnywhere) {
  EXPECT_TRUE(AllFinite({}));
  for (size_t count : {1, 7, 16, 33, 100}) {
    std::vector<float> values(count, std::numeric_limits<float>::max());
    EXPECT_TRUE(AllFinite(values));
    for (size_t i = 0; i < count; ++i) {
      for (float bad : {std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()}) {
        values[i] = bad;
        EXPECT_FALSE(AllFinite(values)) << i << " of " << count;
        values[i] = -std::numeric_limits<float>::denorm_min();
      }
    }
  }
}

// A NaN or infinite scale must not be hidden by the arithmetic after it.
TEST_P(ConvertTest, NonFiniteScalesGiveNonFiniteValues) {
  for (DType dtype : kConvertible) {
    for (int offset : HalfOffsets(dtype)) {
      for (uint16_t bad : {0x7C00, 0xFC00, 0x7E00}) {
        // All quants, sub-scales and minima are 17 or 0x11: not zero.
        std::vector<uint16_t> block(DTypeBlockBytes(dtype) / 2, 0x1111);
        block[offset / 2] = bad;
        std::vector<float> out(DTypeBlockElements(dtype));
        const TensorView view{dtype, Shape({DTypeBlockElements(dtype)}),
                              reinterpret_cast<const std::byte*>(block.data()),
                              block.size() * 2};
        ASSERT_TRUE(ConvertToF32(view, absl::MakeSpan(out)).ok());
        EXPECT_FALSE(AllFinite(out)) << DTypeName(dtype) << " at " << offset;
      }
    }
  }
}

TEST(ConvertErrorTest, NamesADtypeThatDoesNotConvert) {
  const int32_t values[2] = {1, 2};
  const TensorView view =
      MakeTensorView(absl::MakeConstSpan(values), Shape({1, 2}));
  std::vector<float> out(2);
  EXPECT_FALSE(CanConvertToF32(DType::kI32));
  for (const absl::Status& status :
       {ConvertToF32(view, absl::MakeSpan(out)),
        ConvertRowToF32(view, 0, absl::MakeSpan(out))}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_NE(status.message().find("i32"), absl::string_view::npos);
  }
}

TEST(ConvertErrorTest, SaysWhichDtypesConvert) {
  int count = 0;
  for (int i = 0; i < kDTypeCount; ++i) {
    count += CanConvertToF32(static_cast<DType>(i));
  }
  EXPECT_EQ(count, static_cast<int>(std::size(kConvertible)));
  for (DType dtype : kConvertible) EXPECT_TRUE(CanConvertToF32(dtype));
}

TEST(ConvertDeathTest, RefusesRowsAndSizesOutsideTheContract) {
  const float values[4] = {1, 2, 3, 4};
  const TensorView view =
      MakeTensorView(absl::MakeConstSpan(values), Shape({2, 2}));
  std::vector<float> out(2);
  EXPECT_DEATH((void)ConvertRowToF32(view, 2, absl::MakeSpan(out)), "Check");
  EXPECT_DEATH((void)ConvertRowToF32(view, -1, absl::MakeSpan(out)), "Check");
  EXPECT_DEATH((void)ConvertToF32(view, absl::MakeSpan(out)), "Check");
}

}  // namespace
}  // namespace nibble
