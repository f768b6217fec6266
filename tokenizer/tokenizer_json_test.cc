#include "tokenizer/tokenizer_json.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tokenizer/spec_check.h"
#include "tokenizer/test_vocabularies.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;
using ::testing::AllOf;
using ::testing::HasSubstr;

const MergePairs kMerges = {{"a", "b"}, {"Ġ", "ab"}};

// Loading `base` after `change` fails with a message that names the file and
// all of `parts`.
void ExpectError(Json base, const std::function<void(Json&)>& change,
                 const std::vector<std::string>& parts) {
  change(base);
  const absl::Status status = ErrorOf(base);
  ASSERT_FALSE(status.ok()) << base.dump().substr(0, 200);
  EXPECT_THAT(status.message(), HasSubstr("test.json"));
  for (const std::string& part : parts) {
    EXPECT_THAT(status.message(), HasSubstr(part));
  }
  EXPECT_LT(status.message().size(), 2000u);
}

void ExpectByteLevelError(const std::function<void(Json&)>& change,
                          const std::vector<std::string>& parts) {
  ExpectError(ByteLevelJson(kMerges), change, parts);
}

TEST(TokenizerJsonTest, ReadsByteLevelVocabulary) {
  const auto tokenizer = FromJson(ByteLevelJson(kMerges));
  EXPECT_EQ(tokenizer->vocabulary_size(), 259);
  EXPECT_EQ(tokenizer->Encode("ab ab<|end|>"), Ids({256, 257, 258}));
  EXPECT_EQ(tokenizer->TokenText(257), "Ġab");
  EXPECT_EQ(tokenizer->TokenText(-1), "");
  EXPECT_EQ(tokenizer->TokenText(259), "");
  EXPECT_EQ(tokenizer->TokenId("<|end|>"), 258);
  EXPECT_EQ(tokenizer->TokenId("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(258));
  EXPECT_FALSE(tokenizer->IsSpecial(257));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->Decode({257, 258, 'x'}), " abx");
  EXPECT_EQ(tokenizer->Decode({257, 258, 'x'}, false), " ab<|end|>x");
  EXPECT_EQ(tokenizer->Decode({-5, 'a', 259, 1 << 30}), "a");
}

TEST(TokenizerJsonTest, ReadsCharacterVocabulary) {
  const auto tokenizer =
      FromJson(CharacterJson({"a", "b"}, {{"▁", "a"}, {"a", "b"}}));
  const int32_t word = *tokenizer->TokenId("▁a");
  const int32_t ab = *tokenizer->TokenId("ab");
  const int32_t space = *tokenizer->TokenId("▁");
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->Encode("a aé"),
            Ids({1, word, word, 3 + 0xC3, 3 + 0xA9}));
  // Text after a special token gets its own leading space.
  EXPECT_EQ(tokenizer->Encode("a</s>a", {false, true}), Ids({word, 2, word}));
  EXPECT_EQ(tokenizer->Encode("", {false, true}), Ids());
  EXPECT_EQ(tokenizer->Encode(" ", {false, true}), Ids({space, space}));
  EXPECT_EQ(tokenizer->Encode("bab", {false, true}),
            Ids({space, *tokenizer->TokenId("b"), ab}));
}

TEST(TokenizerJsonTest, BothSpellingsOfMergesAreRead) {
  Json json = ByteLevelJson(kMerges);
  json["model"]["merges"] = {"a b", "Ġ ab"};
  EXPECT_EQ(FromJson(json)->Encode("ab ab"), Ids({256, 257}));
}

TEST(TokenizerJsonTest, NoTypeMeansBpeWhereThereAreMerges) {
  Json json = ByteLevelJson(kMerges);
  json["model"].erase("type");
  EXPECT_EQ(FromJson(json)->Encode("ab"), Ids({256}));
}

TEST(TokenizerJsonTest, MetaspaceStepPrependsWhereItsSchemeSays) {
  Json json = CharacterJson({"a"}, {{"▁", "a"}});
  json["normalizer"] = nullptr;
  const auto encode = [&](const std::string& scheme, const std::string& text) {
    json["pre_tokenizer"] = {{"type", "Metaspace"},
                             {"replacement", "▁"},
                             {"prepend_scheme", scheme},
                             {"split", false}};
    return FromJson(json)->Encode(text, {false, true});
  };
  const auto tokenizer = FromJson(json);
  const int32_t word = *tokenizer->TokenId("▁a");
  const int32_t a = *tokenizer->TokenId("a");
  EXPECT_EQ(encode("first", "a</s>a"), Ids({word, 2, a}));
  EXPECT_EQ(encode("always", "a</s>a"), Ids({word, 2, word}));
  EXPECT_EQ(encode("never", "a a"), Ids({a, word}));
  EXPECT_EQ(encode("first", " a"), Ids({word}));
}

TEST(TokenizerJsonTest, PrefixSpaceIsAddedWhenAsked) {
  Json json = ByteLevelJson(kMerges);
  json["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = FromJson(json);
  EXPECT_EQ(tokenizer->Encode("ab"), Ids({257}));
  EXPECT_EQ(tokenizer->Encode(" ab"), Ids({257}));
  EXPECT_EQ(tokenizer->Encode(""), Ids());
}

TEST(TokenizerJsonTest, HolesInIdsAreTolerated) {
  Json json = ByteLevelJson(kMerges);
  json["model"]["vocab"]["Ġab"] = 1000;
  const auto tokenizer = FromJson(json);
  EXPECT_EQ(tokenizer->vocabulary_size(), 1001);
  EXPECT_EQ(tokenizer->Encode("ab ab"), Ids({256, 1000}));
  EXPECT_EQ(tokenizer->TokenText(500), "");
  EXPECT_EQ(tokenizer->Decode({500, 1000, 257}), " ab");
}

TEST(TokenizerJsonTest, RejectsMergeOfUnknownTokens) {
  ExpectByteLevelError(
      [](Json& j) {
        j["model"]["merges"].push_back(Json::array({"ab", "漢"}));
      },
      {"merge 2", "漢"});
  ExpectByteLevelError(
      [](Json& j) {
        j["model"]["merges"].push_back(Json::array({"a", "c"}));
      },
      {"merge 2", "\"ac\""});
  ExpectByteLevelError(
      [](Json& j) {
        j["model"]["merges"].push_back(Json::array({"", "a"}));
      },
      {"merge 2"});
}

TEST(TokenizerJsonTest, RejectsMergesThatAreNotPairs) {
  for (const Json& merge :
       {Json("a"), Json("a b c"), Json(7), Json::array({"a"}),
        Json::array({"a", "b", "c"}), Json::array({"a", 1}), Json::object(),
        Json(nullptr)}) {
    ExpectByteLevelError(
        [&](Json& j) { j["model"]["merges"].push_back(merge); },
        {"model.merges[2]"});
  }
}

TEST(TokenizerJsonTest, AbsurdlyLongMergesAreHarmless) {
  Json json = ByteLevelJson({});
  const std::string left(200'000, 'a');
  json["model"]["vocab"][left] = 300;
  json["model"]["vocab"][left + "b"] = 301;
  json["model"]["merges"] = Json::array({Json::array({left, "b"})});
  EXPECT_EQ(FromJson(json)->Encode("ab"), Ids({'a', 'b'}));
  json["model"]["merges"].push_back(Json::array({left, left}));
  ExpectError(json, [](Json&) {}, {"merge 1"});
}

TEST(TokenizerJsonTest, MergesThatLeadInCirclesAreHarmless) {
  // Each part needs the other's merge first; none can begin.
  Json json = ByteLevelJson({});
  json["model"]["vocab"]["xy"] = 300;
  json["model"]["vocab"]["xyz"] = 301;
  json["model"]["vocab"]["yz"] = 302;
  json["model"]["merges"] =
      Json::array({Json::array({"xy", "z"}), Json::array({"x", "yz"})});
  EXPECT_EQ(FromJson(json)->Encode("xyz"), Ids({'x', 'y', 'z'}));
}

TEST(TokenizerJsonTest, RejectsBadIds) {
  ExpectByteLevelError([](Json& j) { j["model"]["vocab"]["Ġab"] = 97; },
                       {"id 97", "Ġab"});
  ExpectByteLevelError([](Json& j) { j["model"]["vocab"]["Ġab"] = -1; },
                       {"Ġab", "-1"});
  ExpectByteLevelError(
      [](Json& j) { j["model"]["vocab"]["Ġab"] = kMaxVocabulary; }, {"Ġab"});
  ExpectByteLevelError(
      [](Json& j) { j["model"]["vocab"]["Ġab"] = ~uint64_t{0}; }, {"Ġab"});
  for (const Json& id : {Json(1.5), Json("1"), Json(nullptr), Json(true),
                         Json::array(), Json::object()}) {
    ExpectByteLevelError([&](Json& j) { j["model"]["vocab"]["Ġab"] = id; },
                         {"Ġab", "not an integer"});
  }
}

TEST(TokenizerJsonTest, RejectsBadAddedTokens) {
  const auto with = [](const std::string& key, const Json& value) {
    return [=](Json& j) { j["added_tokens"][0][key] = value; };
  };
  ExpectByteLevelError(with("id", 97), {"id 97", "<|end|>", "\"a\""});
  ExpectByteLevelError(with("id", -1), {"<|end|>", "-1"});
  ExpectByteLevelError(with("id", kMaxVocabulary), {"<|end|>"});
  ExpectByteLevelError(with("id", int64_t{1} << 40), {"added_tokens[0].id"});
  ExpectByteLevelError(with("id", "1"), {"added_tokens[0].id"});
  ExpectByteLevelError(with("content", 5), {"added_tokens[0].content"});
  ExpectByteLevelError(with("content", std::string(5000, 'x')), {"5000"});
  ExpectByteLevelError(with("lstrip", 1), {"added_tokens[0].lstrip"});
  ExpectByteLevelError([](Json& j) { j["added_tokens"] = 1; },
                       {"added_tokens"});
  ExpectByteLevelError(
      [](Json& j) {
        j["added_tokens"].push_back(j["added_tokens"][0]);
        j["added_tokens"][1]["content"] = "other";
      },
      {"<|end|>", "other"});
}

TEST(TokenizerJsonTest, RefusesUnknownExpressionsByName) {
  ExpectByteLevelError(
      [](Json& j) {
        j["pre_tokenizer"] = {
            {"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", R"(\p{L}+|\p{N}{1,2})"}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"},
               {"add_prefix_space", false},
               {"use_regex", false}}}}};
      },
      {R"(\\p{L}+|\\p{N}{1,2})", "not supported", "Llama 3"});
}

TEST(TokenizerJsonTest, RefusesUnknownComponentsByName) {
  const auto set = [](const std::string& key, const Json& value) {
    return [=](Json& j) { j[key] = value; };
  };
  ExpectByteLevelError(set("normalizer", {{"type", "NFKC"}}),
                       {"normalizer", "NFKC"});
  ExpectByteLevelError(
      set("normalizer",
          {{"type", "Sequence"},
           {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}}),
      {"Lowercase"});
  ExpectByteLevelError(set("normalizer", {{"type", "Replace"},
                                          {"pattern", {{"Regex", "a+"}}},
                                          {"content", "b"}}),
                       {"Replace", "a+"});
  ExpectByteLevelError(set("pre_tokenizer", {{"type", "BertPreTokenizer"}}),
                       {"pre_tokenizer", "BertPreTokenizer"});
  ExpectByteLevelError(set("decoder", {{"type", "WordPiece"}}),
                       {"decoder", "WordPiece"});
  ExpectByteLevelError(set("post_processor", {{"type", "BertProcessing"}}),
                       {"post_processor", "BertProcessing"});
  ExpectByteLevelError([](Json& j) { j["model"]["type"] = "Unigram"; },
                       {"Unigram", "BPE"});
  ExpectByteLevelError([](Json& j) { j["model"]["dropout"] = 0.1; },
                       {"dropout"});
  ExpectByteLevelError(
      [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
      {"end_of_word_suffix"});
  ExpectByteLevelError([](Json& j) { j["model"]["unk_token"] = "<?>"; },
                       {"unk_token", "<?>"});
  ExpectByteLevelError(set("normalizer", {{"type", "Prepend"},
                                          {"prepend", std::string(99, 'x')}}),
                       {"Prepend", "99"});
}

TEST(TokenizerJsonTest, RefusesPrefixSpaceAfterAFirstStep) {
  ExpectByteLevelError(
      [](Json& j) {
        j["pre_tokenizer"] = {
            {"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Digits"}, {"individual_digits", true}},
              {{"type", "ByteLevel"}, {"add_prefix_space", true}}}}};
      },
      {"add_prefix_space"});
}

TEST(TokenizerJsonTest, RejectsTemplatesThatNameNoToken) {
  const Json json = CharacterJson({"a"}, {});
  ExpectError(json,
              [](Json& j) {
                j["post_processor"]["special_tokens"]["<s>"]["ids"] = {70000};
              },
              {"70000"});
  ExpectError(
      json, [](Json& j) { j["post_processor"]["special_tokens"].erase("<s>"); },
      {"post_processor"});
  ExpectError(json,
              [](Json& j) { j["post_processor"]["single"] = Json::array(); },
              {"post_processor"});
  ExpectError(json, [](Json& j) { j["post_processor"]["single"] = "x"; },
              {"post_processor"});
}

TEST(TokenizerJsonTest, RejectsDocumentsOfAnotherShape) {
  for (const std::string bytes :
       {"", " ", "{", "[]", "7", "null", "\"x\"", "{}", "{\"model\":5}",
        "{\"model\":{}}", "{\"model\":{\"type\":\"BPE\"}}", "{\"model\":[]}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":{}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{\"a\":"
        "\"b\"}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"type\":1}}", "\xFF\xFE", "{\"a\":1}x"}) {
    const absl::Status status = ErrorOf(bytes);
    EXPECT_FALSE(status.ok()) << bytes;
    EXPECT_THAT(status.message(), HasSubstr("test.json"));
  }
}

TEST(TokenizerJsonTest, RejectsTruncationAnywhere) {
  const std::string bytes = CharacterJson({"a"}, {{"a", "a"}}).dump();
  for (size_t size = 0; size < bytes.size(); size += 7) {
    EXPECT_FALSE(ErrorOf(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(TokenizerJsonTest, RejectsInvalidUtf8InAToken) {
  std::string bytes = ByteLevelJson(kMerges).dump();
  bytes.replace(bytes.find("<|end|>"), 1, "\xFF");
  EXPECT_THAT(ErrorOf(bytes).message(),
              AllOf(HasSubstr("test.json"), HasSubstr("UTF-8")));
}

TEST(TokenizerJsonTest, RejectsDeepNesting) {
  const std::string deep = absl::StrCat("{\"x\":", std::string(100'000, '['));
  EXPECT_THAT(ErrorOf(deep).message(), HasSubstr("deep"));
}

TEST(TokenizerJsonTest, RejectsKeysGivenTwice) {
  EXPECT_THAT(ErrorOf(std::string("{\"model\":1,\"model\":2}")).message(),
              HasSubstr("twice"));
  EXPECT_THAT(
      ErrorOf(std::string("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
                          "\"a\":1},\"merges\":[]}}"))
          .message(),
      HasSubstr("both spelled"));
}

}  // namespace
}  // namespace nibble
