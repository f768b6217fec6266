#include "apps/common/flag_types.h"

#include <cmath>
#include <string>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(TokenIds, ReadsAListAndPrintsItBack) {
  TokenIds value;
  std::string error;
  ASSERT_TRUE(AbslParseFlag("1,0,2147483647", &value, &error)) << error;
  EXPECT_TRUE(value.given);
  EXPECT_THAT(value.ids, ElementsAre(1, 0, 2147483647));
  EXPECT_EQ(AbslUnparseFlag(value), "1,0,2147483647");
}

TEST(TokenIds, KnowsAnEmptyListFromAnAbsentFlag) {
  TokenIds value;
  std::string error;
  EXPECT_FALSE(value.given);
  ASSERT_TRUE(AbslParseFlag("", &value, &error));
  EXPECT_TRUE(value.given);
  EXPECT_THAT(value.ids, IsEmpty());
}

TEST(TokenIds, RefusesWhatIsNoIdAndNamesIt) {
  for (absl::string_view text :
       {"-1", "x", "1,,2", "1,", "1.5", "2147483648", "99999999999999999999"}) {
    TokenIds value;
    std::string error;
    EXPECT_FALSE(AbslParseFlag(text, &value, &error)) << text;
    EXPECT_THAT(error, HasSubstr("is not a token id")) << text;
    EXPECT_FALSE(value.given) << "the value must stay as it was";
  }
}

TEST(LogitBias, ReadsPairs) {
  LogitBias value;
  std::string error;
  ASSERT_TRUE(AbslParseFlag("3:-1.5,7:-inf,0:2", &value, &error)) << error;
  ASSERT_EQ(value.biases.size(), 3u);
  EXPECT_EQ(value.biases[3], -1.5f);
  EXPECT_EQ(value.biases[0], 2.0f);
  EXPECT_TRUE(std::isinf(value.biases[7]) && value.biases[7] < 0);
}

TEST(LogitBias, RefusesMalformedPairs) {
  for (absl::string_view text :
       {"3", "3:", ":1", "3:x", "-3:1", "3:nan", "3:inf", "3:1,3:2", "3:1,"}) {
    LogitBias value;
    std::string error;
    EXPECT_FALSE(AbslParseFlag(text, &value, &error)) << text;
    EXPECT_FALSE(error.empty()) << text;
  }
}

TEST(GivenString, KnowsAnEmptyTextFromAnAbsentFlag) {
  GivenString value;
  std::string error;
  EXPECT_FALSE(value.given);
  ASSERT_TRUE(AbslParseFlag("", &value, &error));
  EXPECT_TRUE(value.given);
  EXPECT_EQ(value.text, "");
}

}  // namespace
}  // namespace nibble
