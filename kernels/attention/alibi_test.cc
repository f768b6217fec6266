#include "kernels/attention/alibi.h"

#include <cmath>

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(AlibiSlopesTest, PowersOfTwoHalveEvenly) {
  const std::vector<float> slopes = AlibiSlopes(8);
  for (int h = 0; h < 8; ++h) EXPECT_EQ(slopes[h], std::exp2f(-(h + 1)));
}

TEST(AlibiSlopesTest, OtherCountsAppendOddSlopesOfTheNextPower) {
  const std::vector<float> slopes = AlibiSlopes(12);
  ASSERT_EQ(slopes.size(), 12u);
  for (int h = 0; h < 8; ++h) EXPECT_EQ(slopes[h], std::exp2f(-(h + 1)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(slopes[8 + i], std::exp2f(-0.5f * (2 * i + 1))) << i;
  }
}

TEST(AlibiSlopesTest, OneHead) {
  EXPECT_EQ(AlibiSlopes(1), std::vector<float>{1.0f / 256.0f});
}

}  // namespace
}  // namespace nibble
