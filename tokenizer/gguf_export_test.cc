#include "tokenizer/gguf_export.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/sentencepiece_model.pb.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// <unk> <s> </s>, 256 bytes, then from 259: ▁ a b ab ▁ab.
std::string SentencePieces(bool remove_spaces = false) {
  sentencepiece::Model model;
  model.mutable_trainer()->set_model_type(2);
  model.mutable_trainer()->set_byte_fallback(true);
  model.mutable_trainer()->set_bos_id(1);
  model.mutable_trainer()->set_eos_id(2);
  model.mutable_normalizer()->set_remove_extra_whitespaces(remove_spaces);
  const auto add = [&model](const std::string& text, int type) {
    sentencepiece::Piece* piece = model.add_pieces();
    piece->set_piece(text);
    piece->set_type(type);
    piece->set_score(-static_cast<float>(model.pieces_size()));
  };
  add("<unk>", 2);
  add("<s>", 3);
  add("</s>", 3);
  for (int byte = 0; byte < 256; ++byte) {
    add(absl::StrFormat("<0x%02X>", byte), 6);
  }
  for (const char* piece : {"▁", "a", "b", "ab", "▁ab"}) add(piece, 1);
  return model.SerializeAsString();
}

// a b ab, and from 3 added tokens: <|end|>, and two spaces.
std::string BytePairs(const std::string& normalizer) {
  return absl::StrCat(R"({"added_tokens": [
    {"id": 3, "content": "<|end|>", "special": true},
    {"id": 4, "content": "  ", "special": false}],
  "normalizer": )",
                      normalizer, R"(, "pre_tokenizer": {"type": "ByteLevel",
    "add_prefix_space": false, "use_regex": true},
  "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE",
    "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

void ExpectSameIds(const TokenizerFiles& files, int64_t vocabulary) {
  const auto v = ToGgufVocabulary(files, vocabulary);
  ASSERT_TRUE(v.ok()) << v.status();
  EXPECT_EQ(static_cast<int64_t>(v->tokens.size()), vocabulary);
  const auto before = MakeTokenizer(files), after = MakeTokenizer(*v);
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ((*before)->adds_bos(), (*after)->adds_bos());
  EXPECT_EQ((*before)->eos_id(), (*after)->eos_id());
  for (const char* text : {"ab", " ab", "abab ab", "a  b", "ba<|end|>ab", ""}) {
    EXPECT_EQ((*before)->Encode(text), (*after)->Encode(text)) << text;
  }
}

TEST(GgufExportTest, SentencePiecesGiveTheSameIds) {
  const std::string model = SentencePieces();
  TokenizerFiles files;
  files.source = "folder";
  files.tokenizer_model = model;
  ExpectSameIds(files, 264);
  ExpectSameIds(files, 270);
  const auto v = ToGgufVocabulary(files, 270);
  EXPECT_EQ(v->model, "llama");
  EXPECT_EQ(v->token_types[0], 2);
  EXPECT_EQ(v->token_types[3], 6);
  EXPECT_EQ(v->token_types[269], 5);
}

TEST(GgufExportTest, BytePairsGiveTheSameIds) {
  for (const auto& [normalizer, pre] :
       std::vector<std::pair<std::string, std::string>>{
           {"null", "gpt-2"}, {R"({"type": "NFC"})", "mpt"}}) {
    const std::string json = BytePairs(normalizer);
    TokenizerFiles files;
    files.source = "folder";
    files.tokenizer_json = json;
    ExpectSameIds(files, 8);
    const auto v = ToGgufVocabulary(files, 8);
    EXPECT_EQ(v->pre, pre);
    EXPECT_EQ(v->token_types, (std::vector<int32_t>{1, 1, 1, 3, 4, 5, 5, 5}));
  }
}

TEST(GgufExportTest, WhatGgufHasNoWordForIsAnError) {
  const std::string model = SentencePieces(/*remove_spaces=*/true);
  TokenizerFiles files;
  files.source = "folder";
  files.tokenizer_model = model;
  auto status = ToGgufVocabulary(files, 264).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("remove_extra_whitespaces"));
  const std::string pieces = SentencePieces();
  files.tokenizer_model = pieces;
  status = ToGgufVocabulary(files, 263).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("264 tokens"));
  status = ToGgufVocabulary({}, 8).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace nibble
