#include "tokenizer/pretokenizer.h"

#include <cctype>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

using Pieces = std::vector<std::string>;
using Kind = PreTokenizerKind;

Pieces Cut(Kind kind, const std::string& text) {
  Pieces pieces;
  PieceCursor cursor(kind, text);
  absl::string_view piece;
  while (cursor.Next(&piece)) pieces.emplace_back(piece);
  return pieces;
}

// ---- A regular expression engine that backtracks, in a few lines: the slow,
// obvious reading of the expressions in pretokenizer.h.

using Char = std::string;  // one character in UTF-8
using Test = std::function<bool(const Char&)>;

struct Item {
  Test test;
  int min = 1;
  int max = 1;
  bool not_before_other = false;  // (?!\S), in place of a character
};
using Alternative = std::vector<Item>;

// The number of characters that items from `i` on match at `at`; -1: none.
int MatchItems(const Alternative& items, size_t i,
               const std::vector<Char>& text, size_t at);

uint8_t Flags(const Char& c) {
  const DecodedChar d = DecodeUtf8(c.data(), c.data() + c.size());
  return CharTable::Get().Flags(d.code);
}
bool IsL(const Char& c) { return Flags(c) & kLetter; }
bool IsN(const Char& c) { return Flags(c) & kNumber; }
bool IsS(const Char& c) { return Flags(c) & kSpace; }
bool IsOther(const Char& c) { return !IsL(c) && !IsN(c) && !IsS(c); }
bool IsNewline(const Char& c) { return c == "\r" || c == "\n"; }

int MatchItems(const Alternative& items, size_t i,
               const std::vector<Char>& text, size_t at) {
  if (i == items.size()) return 0;
  const Item& item = items[i];
  if (item.not_before_other) {
    if (at < text.size() && !IsS(text[at])) return -1;
    return MatchItems(items, i + 1, text, at);
  }
  int most = 0;
  while (most < item.max && at + most < text.size() &&
         item.test(text[at + most])) {
    ++most;
  }
  for (int n = most; n >= item.min; --n) {
    const int rest = MatchItems(items, i + 1, text, at + n);
    if (rest >= 0) return n + rest;
  }
  return -1;
}

Test Is(const Char& wanted, bool any_case) {
  return [=](const Char& c) {
    if (c == wanted) return true;
    if (!any_case) return false;
    return (c.size() == 1 && std::tolower(c[0]) == wanted[0]) ||
           (wanted == "s" && c == "ſ");
  };
}

constexpr int kAny = 1 << 30;

std::vector<Alternative> Contractions(bool any_case) {
  std::vector<Alternative> out;
  for (const std::string word : {"s", "t", "re", "ve", "m", "ll", "d"}) {
    Alternative items = {{Is("'", false)}};
    for (const char c : word)
      items.push_back({Is(std::string(1, c), any_case)});
    out.push_back(items);
  }
  return out;
}

std::vector<Alternative> Gpt2Expression() {
  std::vector<Alternative> out = Contractions(false);
  for (const Test& kind : {Test(IsL), Test(IsN), Test(IsOther)}) {
    out.push_back({{Is(" ", false), 0, 1}, {kind, 1, kAny}});
  }
  out.push_back({{IsS, 1, kAny}, {nullptr, 0, 0, true}});
  out.push_back({{IsS, 1, kAny}});
  return out;
}

std::vector<Alternative> Llama3Expression(int digits) {
  std::vector<Alternative> out = Contractions(true);
  const Test lead = [](const Char& c) {
    return !IsNewline(c) && !IsL(c) && !IsN(c);
  };
  out.push_back({{lead, 0, 1}, {IsL, 1, kAny}});
  out.push_back({{IsN, 1, digits}});
  out.push_back(
      {{Is(" ", false), 0, 1}, {IsOther, 1, kAny}, {IsNewline, 0, kAny}});
  out.push_back({{IsS, 0, kAny}, {IsNewline, 1, kAny}});
  out.push_back({{IsS, 1, kAny}, {nullptr, 0, 0, true}});
  out.push_back({{IsS, 1, kAny}});
  return out;
}

std::vector<Char> Characters(const std::string& text) {
  std::vector<Char> out;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const uint32_t size = DecodeUtf8(p, end).size;
    out.emplace_back(p, size);
    p += size;
  }
  return out;
}

Pieces SlowCut(const std::vector<Alternative>& expression,
               const std::string& text) {
  Pieces pieces;
  const std::vector<Char> chars = Characters(text);
  for (size_t at = 0; at < chars.size();) {
    int size = -1;
    for (const Alternative& items : expression) {
      size = MatchItems(items, 0, chars, at);
      if (size > 0) break;
    }
    EXPECT_GT(size, 0);
    if (size <= 0) return pieces;
    std::string piece;
    for (int i = 0; i < size; ++i) piece += chars[at + i];
    pieces.push_back(piece);
    at += size;
  }
  return pieces;
}

// Cuts between characters of different `group`; with alone, also between any
// two that have it.
Pieces CutGroups(const std::string& text, const Test& group, bool alone) {
  Pieces pieces;
  bool last = false;
  for (const Char& c : Characters(text)) {
    const bool now = group(c);
    if (pieces.empty() || now != last || (alone && now)) pieces.emplace_back();
    pieces.back() += c;
    last = now;
  }
  return pieces;
}

Pieces SlowDigitsGpt2(const std::string& text) {
  Pieces out;
  const Test digit = [](const Char& c) { return (Flags(c) & kDigit) != 0; };
  for (const std::string& part : CutGroups(text, digit, /*alone=*/true)) {
    for (const std::string& piece : SlowCut(Gpt2Expression(), part)) {
      out.push_back(piece);
    }
  }
  return out;
}

// Falcon's four steps, one after the other.
Pieces SlowFalcon(const std::string& text) {
  const Test punctuation = [](const Char& c) {
    return (Flags(c) & kPunctuation) != 0;
  };
  const auto digit = [](char c) {
    // The bytes of Latin-1's ² ³ ¹ ¼ ½ ¾.
    return absl::string_view("0123456789\xB2\xB3\xB9\xBC\xBD\xBE").find(c) !=
           absl::string_view::npos;
  };
  Pieces out;
  for (const std::string& part :
       CutGroups(text, punctuation, /*alone=*/false)) {
    for (const std::string& word : SlowCut(Gpt2Expression(), part)) {
      Pieces groups;
      for (size_t i = 0; i < word.size(); ++i) {
        if (i == 0 || digit(word[i]) != digit(word[i - 1])) {
          groups.emplace_back();
        }
        groups.back() += word[i];
      }
      for (const std::string& group : groups) {
        std::string rest;  // before the next three digits
        for (size_t i = 0; i < group.size();) {
          const bool three = i + 3 <= group.size() &&
                             std::isdigit(group[i] & 0xFF) &&
                             std::isdigit(group[i + 1] & 0xFF) &&
                             std::isdigit(group[i + 2] & 0xFF);
          if (three && !rest.empty()) out.push_back(std::exchange(rest, ""));
          if (three) out.push_back(group.substr(i, 3));
          if (!three) rest += group[i];
          i += three ? 3 : 1;
        }
        if (!rest.empty()) out.push_back(rest);
      }
    }
  }
  return out;
}

// The expressions' own characters, their look-alikes, and some beyond.
const std::vector<std::string> kAlphabet = {" ",        " ",
                                            "  ",       "\t",
                                            "\n",       "\r",
                                            "\n\n",     "'",
                                            "'s",       "'S",
                                            "'ll",      "'rE",
                                            "'ſ",       "a",
                                            "B",        "é",
                                            "漢",       "ж",
                                            "ſ",        "1",
                                            "23",       "456",
                                            "²",        "½",
                                            "٣",        ".",
                                            ",",        "(",
                                            "!!",       "_",
                                            "\u2014",   "\u00A0",
                                            "\u3000",   "\u0301",
                                            "🙂",     "\xFF",
                                            "\xE2\x80", std::string(1, '\0'),
                                            "\u0085",   "\u200B"};

class RandomTexts : public ::testing::TestWithParam<int> {};

TEST_P(RandomTexts, CutLikeTheBacktrackingReference) {
  std::mt19937 random(GetParam());
  for (int i = 0; i < 400; ++i) {
    const std::string text =
        RandomText(kAlphabet, 1 + static_cast<int>(random() % 12), &random);
    EXPECT_EQ(Cut(Kind::kGpt2, text), SlowCut(Gpt2Expression(), text));
    EXPECT_EQ(Cut(Kind::kLlama3, text), SlowCut(Llama3Expression(3), text));
    EXPECT_EQ(Cut(Kind::kQwen2, text), SlowCut(Llama3Expression(1), text));
    EXPECT_EQ(Cut(Kind::kDigitsGpt2, text), SlowDigitsGpt2(text)) << text;
    EXPECT_EQ(Cut(Kind::kFalcon, text), SlowFalcon(text)) << text;
  }
}

TEST_P(RandomTexts, PiecesCoverTheText) {
  std::mt19937 random(GetParam());
  for (const Kind kind :
       {Kind::kWhole, Kind::kGpt2, Kind::kLlama3, Kind::kQwen2, Kind::kFalcon,
        Kind::kDigitsGpt2, Kind::kMetaSpace, Kind::kMetaSpaceRun}) {
    const std::string text = RandomText(kAlphabet, 200, &random);
    std::string joined;
    for (const std::string& piece : Cut(kind, text)) {
      EXPECT_FALSE(piece.empty());
      joined += piece;
    }
    EXPECT_EQ(joined, text);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTexts, ::testing::Range(0, 5));

TEST(Gpt2, KeepsOneSpaceForTheNextWord) {
  EXPECT_EQ(Cut(Kind::kGpt2, "a  b \n c  "),
            Pieces({"a", " ", " b", " \n", " c", "  "}));
  EXPECT_EQ(Cut(Kind::kGpt2, "\tx"), Pieces({"\t", "x"}));
}

TEST(Gpt2, ContractionsAreLowerCaseOnly) {
  EXPECT_EQ(Cut(Kind::kGpt2, "it's we'LL"),
            Pieces({"it", "'s", " we", "'", "LL"}));
}

TEST(Llama3, ContractionsTakeAnyCaseAndTheLongS) {
  EXPECT_EQ(Cut(Kind::kLlama3, "we'LL 'ſa"), Pieces({"we", "'LL", " '", "ſa"}));
  EXPECT_EQ(Cut(Kind::kLlama3, "x'ſa"), Pieces({"x", "'ſ", "a"}));
}

TEST(Llama3, DigitsComeInThrees) {
  EXPECT_EQ(Cut(Kind::kLlama3, "1234567"), Pieces({"123", "456", "7"}));
  EXPECT_EQ(Cut(Kind::kQwen2, "123"), Pieces({"1", "2", "3"}));
}

TEST(Falcon, StagesSeeOnlyTheirOwnPiece) {
  // A space before punctuation cannot join it.
  EXPECT_EQ(Cut(Kind::kFalcon, "a (b"), Pieces({"a", " ", "(", "b"}));
  EXPECT_EQ(Cut(Kind::kFalcon, "3333333"), Pieces({"333", "333", "3"}));
  EXPECT_EQ(Cut(Kind::kFalcon, " 12"), Pieces({" ", "12"}));
  EXPECT_EQ(Cut(Kind::kFalcon, "$+<=>^`|~a"), Pieces({"$+<=>^`|~", "a"}));
  // Punctuation of Unicode 8.0 is cut off, younger is not.
  EXPECT_EQ(Cut(Kind::kFalcon, "a\u2042"), Pieces({"a", "\u2042"}));
  EXPECT_EQ(Cut(Kind::kFalcon, "\u00A7\u061D"), Pieces({"\u00A7", "\u061D"}));
  EXPECT_EQ(Cut(Kind::kGpt2, "\u00A7\u061D"), Pieces({"\u00A7\u061D"}));
}

TEST(Falcon, BytesThatLookLikeDigitsInLatin1AreDigits) {
  // U+0432 is D0 B2, and B2 spells "²".
  EXPECT_EQ(Cut(Kind::kFalcon, "в"), Pieces({"\xD0", "\xB2"}));
  EXPECT_EQ(Cut(Kind::kFalcon, "²123"), Pieces({"\xC2", "\xB2", "123"}));
}

TEST(SmolLm2, DigitsStandAlone) {
  EXPECT_EQ(Cut(Kind::kDigitsGpt2, "111  8"),
            Pieces({"1", "1", "1", "  ", "8"}));
  EXPECT_EQ(Cut(Kind::kDigitsGpt2, "a½"), Pieces({"a", "½"}));
}

TEST(MetaSpace, CutsBeforeEachOrEachRun) {
  EXPECT_EQ(Cut(Kind::kMetaSpace, "a▁▁b▁c"), Pieces({"a", "▁", "▁b", "▁c"}));
  EXPECT_EQ(Cut(Kind::kMetaSpaceRun, "a▁▁b▁c"), Pieces({"a", "▁▁b", "▁c"}));
}

}  // namespace
}  // namespace nibble
