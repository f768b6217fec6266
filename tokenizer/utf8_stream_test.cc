#include "tokenizer/utf8_stream.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8_assembler.h"

namespace nibble {
namespace {

using Damage = Utf8Assembler::Damage;

std::string Assemble(Damage damage, const std::vector<std::string>& parts) {
  Utf8Assembler assembler(damage);
  std::string out;
  for (const std::string& part : parts) {
    assembler.Append(part, &out);
    EXPECT_TRUE(IsValidUtf8(out));
  }
  assembler.Flush(&out);
  return out;
}

TEST(Utf8AssemblerTest, HoldsBackUnfinishedCharacters) {
  Utf8Assembler assembler(Damage::kOncePerSequence);
  std::string out;
  for (const char* byte : {"\xF0", "\x9F", "\x99"}) {
    assembler.Append(byte, &out);
    EXPECT_EQ(out, "");
  }
  assembler.Append("\x82!", &out);
  EXPECT_EQ(out, "🙂!");
}

TEST(Utf8AssemblerTest, ReplacesMaximalStartsLikeRustAndPython) {
  const Damage once = Damage::kOncePerSequence;
  EXPECT_EQ(Assemble(once, {"a\xF0\x9F\x99z"}), "a\uFFFDz");
  EXPECT_EQ(Assemble(once, {"\xE0\x80\x80"}), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Assemble(once, {"\xED\xA0\x80"}), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Assemble(once, {"\xF4\x90\x80\x80"}), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Assemble(once, {"\xC3", "\xC3\xA9"}), "\uFFFDé");
  EXPECT_EQ(Assemble(once, {"x\xE2\x82"}), "x\uFFFD");
  EXPECT_EQ(Assemble(Damage::kOncePerByte, {"x\xE2\x82"}), "x\uFFFD\uFFFD");
}

TEST(Utf8AssemblerTest, PartsDoNotMatter) {
  std::mt19937 random(1);
  const std::vector<std::string> alphabet = {
      "a", "é", "漢", "🙂", "\xF0", "\x9F", "\x80", "\xE2", "\xED", "\xA0"};
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(alphabet, 8, &random);
    std::vector<std::string> parts;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 3;
      parts.push_back(text.substr(at, size));
      at += size;
    }
    EXPECT_EQ(Assemble(Damage::kOncePerSequence, parts),
              Assemble(Damage::kOncePerSequence, {text}));
  }
}

std::string Stream(const Tokenizer& tokenizer,
                   const std::vector<int32_t>& ids) {
  TextStream stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    text += stream.Push(id);
    EXPECT_TRUE(IsValidUtf8(text));
  }
  return text + stream.Flush();
}

TEST(TextStreamTest, EqualsDecodeForAnyIdsOfByteLevelTokens) {
  std::mt19937 random(2);
  const auto tokenizer = FromJson(ByteLevelJson({{"a", "b"}, {"Ã", "©"}}));
  for (int i = 0; i < 500; ++i) {
    std::vector<int32_t> ids;
    for (int k = 0; k < 20; ++k) {
      ids.push_back(static_cast<int32_t>(random() % 264) - 2);
    }
    EXPECT_EQ(Stream(*tokenizer, ids), tokenizer->Decode(ids));
  }
}

TEST(TextStreamTest, EqualsDecodeForTextsWithFallbackBytes) {
  std::mt19937 random(3);
  const auto tokenizer = FromJson(CharacterJson({"a", "b"}, {{"▁", "a"}}));
  for (int i = 0; i < 500; ++i) {
    const std::string text =
        RandomText({"a", "b", " ", "é", "漢", "🙂", "\n"}, 12, &random);
    const std::vector<int32_t> ids = tokenizer->Encode(text);
    EXPECT_EQ(Stream(*tokenizer, ids), text);
    EXPECT_EQ(tokenizer->Decode(ids), text);
  }
}

TEST(TextStreamTest, DropsOneSpaceAtTheStartOnly) {
  const auto tokenizer = FromJson(CharacterJson({"a"}, {{"▁", "a"}}));
  const int32_t word = *tokenizer->TokenId("▁a");
  TextStream stream(*tokenizer);
  EXPECT_EQ(stream.Push(1), "");  // BOS does not count
  EXPECT_EQ(stream.Push(word), "a");
  EXPECT_EQ(stream.Push(word), " a");
  EXPECT_EQ(stream.Flush(), "");
  EXPECT_EQ(stream.Push(*tokenizer->TokenId("a")), "a");
  EXPECT_EQ(stream.Push(word), " a");
}

TEST(TextStreamTest, LostBytesBecomeOneReplacementEach) {
  const auto tokenizer = FromJson(CharacterJson({"a"}, {}));
  const int32_t a = *tokenizer->TokenId("a");
  const std::vector<int32_t> ids = {3 + 0xE2, 3 + 0x82, a, 3 + 0xF0};
  EXPECT_EQ(Stream(*tokenizer, ids), "\uFFFD\uFFFDa\uFFFD");
  EXPECT_EQ(tokenizer->Decode(ids), "\uFFFD\uFFFDa\uFFFD");
  // Hugging Face gives up the whole run; a stream has shown its start.
  EXPECT_EQ(tokenizer->Decode({3 + 'x', 3 + 0xFF}), "\uFFFD\uFFFD");
  EXPECT_EQ(Stream(*tokenizer, {3 + 'x', 3 + 0xFF}), "x\uFFFD");
}

TEST(TextStreamTest, IdsOutsideTheVocabularyAreNothing) {
  const auto tokenizer = FromJson(ByteLevelJson({}));
  TextStream stream(*tokenizer);
  for (const int32_t id : {-1, 257, 1 << 30}) EXPECT_EQ(stream.Push(id), "");
  EXPECT_EQ(stream.Push('x'), "x");
}

}  // namespace
}  // namespace nibble
