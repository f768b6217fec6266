#include "tokenizer/gguf_reader.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<int32_t>;
using ::testing::HasSubstr;

GgufVocabulary BytePairs() {
  GgufVocabulary v;
  v.source = "test.gguf";
  v.model = "gpt2";
  v.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    v.tokens.push_back(SpellByte(static_cast<uint8_t>(byte)));
  }
  v.tokens.insert(v.tokens.end(), {"ab", "<|end|>", "  "});
  v.token_types.assign(v.tokens.size(), 1);
  v.token_types[257] = 3;
  v.token_types[258] = 4;
  v.merges = {"a b"};
  v.bos_id = v.eos_id = 257;
  return v;
}

GgufVocabulary SentencePieces() {
  GgufVocabulary v;
  v.source = "test.gguf";
  v.model = "llama";
  const TokenizerSpec spec = ScoredSpec({"a", "b"}, {{"a", "b"}, {"▁", "ab"}});
  for (size_t id = 0; id < spec.vocabulary.size(); ++id) {
    v.tokens.push_back(spec.vocabulary[id].text);
    v.scores.push_back(spec.vocabulary[id].score);
    v.token_types.push_back(id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
  }
  v.bos_id = 1;
  v.eos_id = 2;
  v.unknown_id = 0;
  return v;
}

std::unique_ptr<Tokenizer> Made(const GgufVocabulary& v) {
  auto tokenizer = MakeTokenizer(v);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

void ExpectError(GgufVocabulary v,
                 const std::function<void(GgufVocabulary&)>& change,
                 const std::string& part) {
  change(v);
  const absl::Status status = MakeTokenizer(v).status();
  ASSERT_FALSE(status.ok()) << part;
  EXPECT_THAT(status.message(), HasSubstr("test.gguf"));
  EXPECT_THAT(status.message(), HasSubstr(part));
}

TEST(GgufReaderTest, ReadsBytePairs) {
  const auto tokenizer = Made(BytePairs());
  EXPECT_EQ(tokenizer->Encode("ab<|end|>  a"), Ids({256, 257, 258, 'a'}));
  EXPECT_EQ(tokenizer->Decode({256, 257, 258}), "ab  ");
  EXPECT_TRUE(tokenizer->IsSpecial(257));
  EXPECT_FALSE(tokenizer->IsSpecial(258));
  EXPECT_EQ(tokenizer->eos_id(), 257);
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(GgufReaderTest, ReadsSentencePieces) {
  const auto tokenizer = Made(SentencePieces());
  const int32_t word = *tokenizer->TokenId("▁ab");
  EXPECT_EQ(tokenizer->Encode("ab ab"), Ids({1, word, word}));
  EXPECT_EQ(tokenizer->Encode("</s>", {false, true}), Ids({2}));
  for (const int32_t id : tokenizer->Encode("</s>", {false, false})) {
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  EXPECT_EQ(tokenizer->Decode({1, word, word}), "ab ab");
}

TEST(GgufReaderTest, FlagsDecideAboutBosEosAndTheLeadingSpace) {
  GgufVocabulary v = SentencePieces();
  v.add_bos = false;
  v.add_eos = true;
  v.add_space_prefix = false;
  const auto tokenizer = Made(v);
  EXPECT_EQ(tokenizer->Encode("ab"), Ids({*tokenizer->TokenId("ab"), 2}));
  v = BytePairs();
  v.add_bos = true;
  EXPECT_EQ(Made(v)->Encode("a"), Ids({257, 'a'}));
  v.add_bos.reset();
  v.pre = "llama-bpe";
  EXPECT_EQ(Made(v)->Encode("a"), Ids({257, 'a'}));
}

TEST(GgufReaderTest, EveryPreTokenizerNameIsItsOwn) {
  const auto count = [](const std::string& pre, const std::string& text) {
    GgufVocabulary v = BytePairs();
    v.merges.push_back("1 1");
    v.tokens.push_back("11");
    v.token_types.push_back(1);
    v.pre = pre;
    return Made(v)->Encode(text, {false, true}).size();
  };
  for (const char* pre :
       {"", "default", "gpt-2", "mpt", "llama-bpe", "falcon"}) {
    EXPECT_EQ(count(pre, "11"), 1u) << pre;
  }
  for (const char* pre : {"qwen2", "smollm"}) EXPECT_EQ(count(pre, "11"), 2u);
  EXPECT_EQ(count("gpt-2", "1111"), 2u);
  EXPECT_EQ(count("llama-bpe", "1111"), 3u);  // 111 and 1
  EXPECT_EQ(count("mpt", "e\u0301"), 2u);     // composed: é has two bytes
  EXPECT_EQ(count("gpt-2", "e\u0301"), 3u);
}

TEST(GgufReaderTest, AllOnesMeansUnset) {
  GgufVocabulary v = SentencePieces();
  v.bos_id = v.eos_id = 0xFFFFFFFF;
  EXPECT_EQ(Made(v)->bos_id(), std::nullopt);
  EXPECT_EQ(Made(v)->Encode(""), Ids());
}

TEST(GgufReaderTest, RefusesWhatIsNotKnownAndListsWhatIs) {
  ExpectError(
      BytePairs(), [](auto& v) { v.pre = "tekken"; }, "llama-bpe");
  ExpectError(
      BytePairs(), [](auto& v) { v.pre = "tekken"; }, "tekken");
  ExpectError(
      BytePairs(), [](auto& v) { v.model = "bert"; }, "bert");
}

TEST(GgufReaderTest, RejectsArraysOfDifferentLengths) {
  ExpectError(
      BytePairs(), [](auto& v) { v.token_types.pop_back(); }, "token_type");
  ExpectError(
      SentencePieces(), [](auto& v) { v.scores.pop_back(); }, "scores");
  ExpectError(
      SentencePieces(), [](auto& v) { v.scores.clear(); }, "scores");
  ExpectError(
      BytePairs(), [](auto& v) { v.merges.clear(); }, "merges");
  ExpectError(
      BytePairs(),
      [](auto& v) {
        v.tokens.clear();
        v.token_types.clear();
      },
      "empty");
}

TEST(GgufReaderTest, RejectsBadTokens) {
  ExpectError(
      SentencePieces(), [](auto& v) { v.tokens[5] = "<0x-1>"; }, "token 5");
  ExpectError(
      SentencePieces(), [](auto& v) { v.tokens[5] = ""; }, "token 5");
  ExpectError(
      BytePairs(), [](auto& v) { v.token_types[5] = 9; }, "token_type[5]");
  ExpectError(
      BytePairs(), [](auto& v) { v.tokens[256] = "\xC3("; }, "token 256");
  ExpectError(
      BytePairs(), [](auto& v) { v.tokens[256] = "a"; }, "spelled");
  ExpectError(
      SentencePieces(), [](auto& v) { v.scores[260] = 0.0f / 0.0f; },
      "token 260");
}

TEST(GgufReaderTest, RejectsBadMergesAndIds) {
  ExpectError(
      BytePairs(), [](auto& v) { v.merges.push_back("ab"); }, "merges[1]");
  ExpectError(
      BytePairs(), [](auto& v) { v.merges.push_back("a b c"); }, "merges[1]");
  ExpectError(
      BytePairs(), [](auto& v) { v.merges.push_back("a c"); }, "merge 1");
  ExpectError(
      BytePairs(), [](auto& v) { v.eos_id = 259; }, "259");
  ExpectError(
      BytePairs(), [](auto& v) { v.bos_id = -1; }, "bos_token_id");
  ExpectError(
      BytePairs(), [](auto& v) { v.bos_id = int64_t{1} << 40; },
      "bos_token_id");
}

}  // namespace
}  // namespace nibble
