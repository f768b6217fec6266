#include "apps/benchmark/statistics.h"

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(Summarize, TakesTheMiddleOfAnOddNumberInAnyOrder) {
  const Summary summary = Summarize({5, 1, 90, 3, 4});
  EXPECT_EQ(summary.median, 4);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.max, 90);
}

TEST(Summarize, TakesTheMeanOfTheMiddleTwoOfAnEvenNumber) {
  EXPECT_EQ(Summarize({4, 1, 2, 100}).median, 3);
}

TEST(Summarize, TakesOneValueAsItIs) {
  const Summary summary = Summarize({7});
  EXPECT_EQ(summary.median, 7);
  EXPECT_EQ(summary.min, 7);
  EXPECT_EQ(summary.max, 7);
}

TEST(Summarize, IsZeroWithoutValues) { EXPECT_EQ(Summarize({}).max, 0); }

}  // namespace
}  // namespace nibble
