#include "tensor/io/error_text.h"

#include <string>

#include "gtest/gtest.h"
#include "tensor/io/utf8.h"

namespace nibble {
namespace {

TEST(QuoteForMessageTest, KeepsTextAndEscapesTheRest) {
  EXPECT_EQ(QuoteForMessage("model.norm.weight"), "'model.norm.weight'");
  EXPECT_EQ(QuoteForMessage(""), "''");
  EXPECT_EQ(QuoteForMessage("caf\xc3\xa9"), "'caf\xc3\xa9'");
  EXPECT_EQ(QuoteForMessage("a\nb\x1b"), "'a\\nb\\x1b'");
  EXPECT_EQ(QuoteForMessage(std::string("a\0z", 3)), "'a\\x00z'");
  EXPECT_EQ(QuoteForMessage("caf\xc3"), "'caf\\xc3'");
}

TEST(QuoteForMessageTest, CutsLongTextBetweenCharacters) {
  const std::string quoted = QuoteForMessage(std::string(100000, 'x'));
  EXPECT_LT(quoted.size(), 150u);
  EXPECT_NE(quoted.find("...' (100000 bytes)"), std::string::npos);
  // Two-byte characters at odd places: a cut at any byte would split one.
  std::string text = "a";
  for (int i = 0; i < 200; ++i) text += "\xc3\xa9";
  EXPECT_TRUE(IsUtf8(QuoteForMessage(text)));
  EXPECT_EQ(QuoteForMessage(text).find("\\x"), std::string::npos);
}

TEST(Utf8Test, AcceptsCharactersOfEveryLength) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("plain"));
  EXPECT_TRUE(IsUtf8("\xc2\x80 \xdf\xbf"));
  EXPECT_TRUE(IsUtf8("\xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80"));
  EXPECT_TRUE(IsUtf8("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
}

TEST(Utf8Test, RejectsBrokenSequences) {
  EXPECT_FALSE(IsUtf8("\x80"));              // Continuation without a start.
  EXPECT_FALSE(IsUtf8("\xc3"));              // Cut off.
  EXPECT_FALSE(IsUtf8("\xe2\x96"));          // Cut off.
  EXPECT_FALSE(IsUtf8("\xc3z"));             // No continuation.
  EXPECT_FALSE(IsUtf8("\xc0\x80"));          // Overlong.
  EXPECT_FALSE(IsUtf8("\xe0\x9f\xbf"));      // Overlong.
  EXPECT_FALSE(IsUtf8("\xf0\x8f\xbf\xbf"));  // Overlong.
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));      // Surrogate.
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));  // Above U+10FFFF.
  EXPECT_FALSE(IsUtf8("\xff"));
}

}  // namespace
}  // namespace nibble
