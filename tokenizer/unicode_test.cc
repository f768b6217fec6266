#include "tokenizer/unicode.h"

#include <string>

#include "gtest/gtest.h"
#include "tokenizer/byte_alphabet.h"

namespace nibble {
namespace {

DecodedChar Decode(const std::string& text) {
  return DecodeUtf8(text.data(), text.data() + text.size());
}

TEST(DecodeUtf8Test, ReadsBackEveryCharacter) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    AppendUtf8(code, &text);
    const DecodedChar c = Decode(text + "x");
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.size, text.size());
    ASSERT_TRUE(c.valid);
  }
}

TEST(DecodeUtf8Test, TakesOneByteOfWhatIsNotUtf8) {
  for (const std::string text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x80\x80",
        "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x96", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x28\xA1"}) {
    const DecodedChar c = Decode(text);
    EXPECT_FALSE(c.valid);
    EXPECT_EQ(c.size, 1u);
    EXPECT_EQ(c.code, kReplacementCharacter);
    EXPECT_FALSE(IsValidUtf8(text));
  }
}

// Sums over all characters, counted with the sources that
// make_unicode_tables.py names.
TEST(CharTableTest, ClassesHaveTheirVersionsSizes) {
  int letters = 0, numbers = 0, spaces = 0, punctuation = 0, digits = 0;
  int words = 0;
  for (uint32_t code = 0; code < 0x110000; ++code) {
    const uint8_t flags = CharTable::Get().Flags(code);
    letters += (flags & kLetter) != 0;
    numbers += (flags & kNumber) != 0;
    spaces += (flags & kSpace) != 0;
    punctuation += (flags & kPunctuation) != 0;
    digits += (flags & kDigit) != 0;
    words += (flags & kWord) != 0;
  }
  EXPECT_EQ(letters, 141028);  // Unicode 16.0
  EXPECT_EQ(numbers, 1911);    // Unicode 16.0
  EXPECT_EQ(spaces, 25);
  EXPECT_EQ(punctuation, 726);  // Unicode 8.0, and 9 more of ASCII
  EXPECT_EQ(digits, 1924);      // Unicode 17.0
  EXPECT_EQ(words, 144667);
}

TEST(CharTableTest, KnowsCharactersThatVersionsDisagreeOn) {
  const auto has = [](uint32_t code, CharFlag flag) {
    return (CharTable::Get().Flags(code) & flag) != 0;
  };
  EXPECT_TRUE(has(0x1C89, kLetter));    // since 16.0
  EXPECT_FALSE(has(0x10940, kLetter));  // since 17.0
  EXPECT_TRUE(has(0x11DE0, kDigit));    // since 17.0
  EXPECT_FALSE(has(0x11DE0, kNumber));
  EXPECT_TRUE(has(0x2E42, kPunctuation));   // 7.0
  EXPECT_FALSE(has(0x2E43, kPunctuation));  // 9.0
  EXPECT_TRUE(has(0x166D, kPunctuation));   // a symbol since 12.0
  EXPECT_TRUE(has('$', kPunctuation));
  EXPECT_TRUE(has(0x0301, kNormalizing));
  EXPECT_FALSE(has(0x0898, kNormalizing));  // a mark since 14.0
  EXPECT_FALSE(has(0x1C, kSpace));
  EXPECT_TRUE(has(0x85, kSpace));
}

TEST(ByteAlphabetTest, SpellsEveryByteWithItsOwnCharacter) {
  std::string all;
  std::string spelled;
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(static_cast<char>(byte));
    const std::string one = SpellByte(static_cast<uint8_t>(byte));
    EXPECT_TRUE(IsValidUtf8(one));
    spelled += one;
  }
  EXPECT_EQ(SpelledBytes(spelled), all);
  EXPECT_EQ(SpellByte(' '), "Ġ");
  EXPECT_EQ(SpellByte('\n'), "Ċ");
  EXPECT_EQ(SpellByte(0xAD), "Ń");
  EXPECT_EQ(SpelledBytes("a b"), std::nullopt);
  EXPECT_EQ(SpelledBytes("漢"), std::nullopt);
  EXPECT_EQ(SpelledBytes("\xFF"), std::nullopt);
}

}  // namespace
}  // namespace nibble
