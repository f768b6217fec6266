#include "tensor/bf16.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a 16-bit pattern from its definition: sign, exponent, fraction.
double Value(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int sign = bits >> 15;
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double value;
  if (exponent == (1 << exponent_bits) - 1) {
    value = fraction != 0 ? std::nan("") : HUGE_VAL;
  } else if (exponent == 0) {
    value = std::ldexp(fraction, 1 - bias - fraction_bits);
  } else {
    value = std::ldexp(fraction + (1 << fraction_bits),
                       exponent - bias - fraction_bits);
  }
  return sign ? -value : value;
}

double Value(F16 v) { return Value(v.bits, 5, 10); }
double Value(BF16 v) { return Value(v.bits, 8, 7); }

template <class T>
T Narrow(float value);
template <>
F16 Narrow<F16>(float value) {
  return ToF16(value);
}
template <>
BF16 Narrow<BF16>(float value) {
  return ToBF16(value);
}

template <class T>
class Float16Test : public ::testing::Test {};

using Types = ::testing::Types<F16, BF16>;
TYPED_TEST_SUITE(Float16Test, Types);

TYPED_TEST(Float16Test, EveryPatternWidensToItsValue) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const TypeParam narrow{static_cast<uint16_t>(bits)};
    const double expected = Value(narrow);
    const float actual = ToFloat(narrow);
    ASSERT_EQ(std::signbit(actual), (bits >> 15) != 0) << bits;
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(actual, static_cast<float>(expected)) << bits;
    }
  }
}

TYPED_TEST(Float16Test, EveryPatternSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const TypeParam narrow{static_cast<uint16_t>(bits)};
    const TypeParam back = Narrow<TypeParam>(ToFloat(narrow));
    if (std::isnan(Value(narrow))) {
      ASSERT_TRUE(std::isnan(Value(back))) << bits;
    } else {
      ASSERT_EQ(back.bits, bits);
    }
  }
}

// Between each two neighbours lies one halfway point: it goes to the even one,
// and the floats beside it to the nearer one.
TYPED_TEST(Float16Test, RoundsToNearestAndTiesToEven) {
  for (uint32_t bits = 0;; ++bits) {
    const TypeParam low{static_cast<uint16_t>(bits)};
    const TypeParam high{static_cast<uint16_t>(bits + 1)};
    if (std::isinf(Value(high))) break;  // The largest finite one has no pair.
    const double middle = (Value(low) + Value(high)) / 2;
    const float tie = static_cast<float>(middle);
    ASSERT_EQ(tie, middle) << "the halfway point is a float";
    const TypeParam even = bits % 2 == 0 ? low : high;
    ASSERT_EQ(Narrow<TypeParam>(tie), even) << bits;
    ASSERT_EQ(Narrow<TypeParam>(std::nextafter(tie, 0.0f)), low) << bits;
    ASSERT_EQ(Narrow<TypeParam>(std::nextafter(tie, kInfinity)), high) << bits;
    ASSERT_EQ(Narrow<TypeParam>(-tie).bits, even.bits | 0x8000) << bits;
  }
}

TEST(F16Test, OverflowsToInfinityFromHalfwayPastTheLargest) {
  EXPECT_EQ(ToF16(65504.0f).bits, 0x7BFF);
  EXPECT_EQ(ToF16(std::nextafter(65520.0f, 0.0f)).bits, 0x7BFF);
  EXPECT_EQ(ToF16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(ToF16(-1e30f).bits, 0xFC00);
  EXPECT_EQ(ToF16(kInfinity).bits, 0x7C00);
}

TEST(F16Test, UnderflowsToSignedZero) {
  EXPECT_EQ(ToF16(std::ldexp(1.0f, -25)).bits, 0);  // A tie with zero.
  EXPECT_EQ(ToF16(std::ldexp(1.5f, -25)).bits, 1);
  EXPECT_EQ(ToF16(-std::numeric_limits<float>::denorm_min()).bits, 0x8000);
}

TEST(BF16Test, OverflowsToInfinity) {
  EXPECT_EQ(ToBF16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(ToBF16(std::numeric_limits<float>::lowest()).bits, 0xFF80);
  EXPECT_EQ(ToBF16(kInfinity).bits, 0x7F80);
}

// A NaN whose payload lies only in the dropped bits must not become infinity.
TEST(Float16NanTest, NanStaysNanAndBecomesQuiet) {
  const float signalling = internal::FloatOfBits(0x7F800001u);
  EXPECT_EQ(ToBF16(signalling).bits, 0x7FC0);
  EXPECT_EQ(ToF16(signalling).bits, 0x7E00);
  const float negative = internal::FloatOfBits(0xFFFFFFFFu);
  EXPECT_EQ(ToBF16(negative).bits, 0xFFFF);
  EXPECT_EQ(ToF16(negative).bits, 0xFFFF);
}

}  // namespace
}  // namespace nibble
