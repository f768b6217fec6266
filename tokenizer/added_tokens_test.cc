#include "tokenizer/added_tokens.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace nibble {
namespace {

using Parts = std::vector<std::pair<std::string, int32_t>>;

Parts Split(const std::vector<AddedToken>& tokens, const std::string& text,
            bool parse_special = true) {
  Parts parts;
  AddedTokenMatcher(tokens).Split(text, parse_special,
                                  [&](absl::string_view part, int32_t id) {
                                    parts.emplace_back(std::string(part), id);
                                  });
  return parts;
}

AddedToken Token(int32_t id, const std::string& content) {
  AddedToken token;
  token.id = id;
  token.content = content;
  return token;
}

TEST(AddedTokensTest, LeftmostThenLongestWins) {
  const std::vector<AddedToken> tokens = {Token(1, "ab"), Token(2, "abcd"),
                                          Token(3, "bc"), Token(4, "  ")};
  EXPECT_EQ(Split(tokens, "xabcdab"),
            Parts({{"x", -1}, {"abcd", 2}, {"ab", 1}}));
  EXPECT_EQ(Split(tokens, "abc"), Parts({{"ab", 1}, {"c", -1}}));
  EXPECT_EQ(Split(tokens, "     "), Parts({{"  ", 4}, {"  ", 4}, {" ", -1}}));
  EXPECT_EQ(Split(tokens, ""), Parts({}));
  EXPECT_EQ(Split({}, "ab"), Parts({{"ab", -1}}));
  EXPECT_EQ(Split({Token(1, "")}, "ab"), Parts({{"ab", -1}}));
}

TEST(AddedTokensTest, SpecialTokensStayTextUnlessParsed) {
  std::vector<AddedToken> tokens = {Token(1, "</s>"), Token(2, "  ")};
  tokens[0].special = true;
  EXPECT_EQ(Split(tokens, "a</s>  ", false), Parts({{"a</s>", -1}, {"  ", 2}}));
  EXPECT_EQ(Split(tokens, "a</s>", true), Parts({{"a", -1}, {"</s>", 1}}));
}

TEST(AddedTokensTest, SingleWordsNeedNoNeighbours) {
  std::vector<AddedToken> tokens = {Token(1, "tok")};
  tokens[0].single_word = true;
  EXPECT_EQ(Split(tokens, "tok tokx étok tok"),
            Parts({{"tok", 1}, {" tokx étok ", -1}, {"tok", 1}}));
  EXPECT_EQ(Split(tokens, "漢tok."), Parts({{"漢tok.", -1}}));
  EXPECT_EQ(Split(tokens, ".tok\xFF"),
            Parts({{".", -1}, {"tok", 1}, {"\xFF", -1}}));
}

TEST(AddedTokensTest, StripsTakeWhiteSpaceOnce) {
  std::vector<AddedToken> tokens = {Token(1, "<m>"), Token(2, " ")};
  tokens[0].lstrip = true;
  tokens[0].rstrip = true;
  EXPECT_EQ(Split({tokens[0]}, "a \u3000<m>\n b"),
            Parts({{"a", -1}, {" \u3000<m>\n ", 1}, {"b", -1}}));
  EXPECT_EQ(Split({tokens[0]}, "<m>  <m>"), Parts({{"<m>  ", 1}, {"<m>", 1}}));
}

TEST(AddedTokensTest, SpaceTokensMatchAgainInWhatAnotherTook) {
  // As in the tokenizers library 0.23.3, odd as it is.
  std::vector<AddedToken> tokens = {Token(1, "word"), Token(2, "  ")};
  tokens[0].rstrip = true;
  EXPECT_EQ(Split(tokens, "word   a"),
            Parts({{"word   ", 1}, {"  ", 2}, {" a", -1}}));
  tokens[1].lstrip = true;
  EXPECT_EQ(Split(tokens, "word  a"), Parts({{"word  ", 1}, {"a", -1}}));
}

TEST(AddedTokensTest, StrippingRunsOfSpaceTokensStaysLinear) {
  std::vector<AddedToken> tokens = {Token(1, " "), Token(2, "\t")};
  tokens[0].rstrip = true;
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += " \t";
  // Quadratic work would be 10^11 steps.
  int count = 0;
  AddedTokenMatcher(tokens).Split(
      text, true, [&](absl::string_view, int32_t id) { count += id == 1; });
  EXPECT_EQ(count, 500'000);
}

}  // namespace
}  // namespace nibble
