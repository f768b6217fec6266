// Ids and texts equal those of the tokenizers library on recorded cases.  The
// tokenizers themselves are not part of the repository; without the reference
// data these tests are skipped.

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8_stream.h"

namespace nibble {
namespace {

using Json = nlohmann::json;
using ::nibble::testing::SharedDataPath;

std::vector<Json> ReadCases(const std::string& path) {
  std::vector<Json> cases;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    cases.push_back(Json::parse(line));
  }
  return cases;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   bool skip_special) {
  TextStream stream(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Flush();
}

class RecordedCases : public ::testing::TestWithParam<std::string> {};

TEST_P(RecordedCases, EncodeAndDecodeLikeTheReference) {
  const std::optional<std::string> folder = SharedDataPath(GetParam());
  if (!folder.has_value()) GTEST_SKIP() << "no reference data";
  const auto tokenizer = LoadTokenizerJson(*folder + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<Json> cases = ReadCases(*folder + "/cases.jsonl");
  ASSERT_EQ(cases.size(), 600u);
  for (const Json& item : cases) {
    SCOPED_TRACE(item.dump());
    const std::string text = item["text"];
    const std::vector<int32_t> ids = item["ids"];
    EXPECT_EQ((*tokenizer)->Encode(text, {false, true}), ids);
    EXPECT_EQ((*tokenizer)->Encode(text), item["ids_special"]);
    const std::string decoded = item["decoded"];
    EXPECT_EQ((*tokenizer)->Decode(ids, false), decoded);
    EXPECT_EQ(Stream(**tokenizer, ids, false), decoded);
    const std::string skipped = item.value("decoded_skip_special", decoded);
    EXPECT_EQ((*tokenizer)->Decode(ids, true), skipped);
    EXPECT_EQ(Stream(**tokenizer, ids, true), skipped);
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, RecordedCases,
                         ::testing::Values("tok-llama2", "tok-gptj",
                                           "tok-gptneox", "tok-falcon"),
                         [](const auto& info) { return info.param.substr(4); });

TEST(LlamaModelFile, EncodesLikeTheJsonFileExceptForSpecialTokens) {
  const std::optional<std::string> folder = SharedDataPath("tok-llama2");
  if (!folder.has_value()) GTEST_SKIP() << "no reference data";
  const auto tokenizer = LoadSentencePieceModel(*folder + "/tokenizer.model");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocabulary_size(), 32000);
  EXPECT_EQ((*tokenizer)->bos_id(), 1);
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  int compared = 0;
  for (const Json& item : ReadCases(*folder + "/cases.jsonl")) {
    const std::string text = item["text"];
    bool special = false;
    for (const char* token : {"<s>", "</s>", "<unk>", "[PAD]"}) {
      special |= text.find(token) != std::string::npos;
    }
    if (special) continue;
    SCOPED_TRACE(item.dump());
    const std::vector<int32_t> ids = item["ids"];
    EXPECT_EQ((*tokenizer)->Encode(text), item["ids_special"]);
    EXPECT_EQ((*tokenizer)->Decode(ids), item["decoded"]);
    ++compared;
  }
  EXPECT_GT(compared, 500);
}

TEST(LlamaModelFile, Llama2cFormOfItEncodesAlike) {
  const std::optional<std::string> folder = SharedDataPath("tok-llama2");
  if (!folder.has_value()) GTEST_SKIP() << "no reference data";
  const auto model = LoadSentencePieceModel(*folder + "/tokenizer.model");
  const auto llama2c = LoadLlama2cTokenizer(*folder + "/tokenizer.bin");
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_TRUE(llama2c.ok()) << llama2c.status();
  for (const Json& item : ReadCases(*folder + "/cases.jsonl")) {
    const std::string text = item["text"];
    EXPECT_EQ((*llama2c)->Encode(text), (*model)->Encode(text)) << item.dump();
  }
}

TEST(LongText, RoundTripsThroughEveryTokenizer) {
  const std::optional<std::string> path =
      SharedDataPath("text/war-and-peace.txt");
  if (!path.has_value()) GTEST_SKIP() << "no reference data";
  std::ifstream file(*path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  // Counted with the tokenizers library 0.23.3.
  const std::vector<std::pair<std::string, size_t>> counts = {
      {"tok-llama2", 859224},
      {"tok-gptj", 792623},
      {"tok-gptneox", 798423},
      {"tok-falcon", 793836}};
  for (const auto& [name, count] : counts) {
    const auto tokenizer =
        LoadTokenizerJson(*SharedDataPath(name) + "/tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text, {false, true});
    EXPECT_EQ(ids.size(), count) << name;
    EXPECT_TRUE((*tokenizer)->Decode(ids) == text) << name;
  }
}

}  // namespace
}  // namespace nibble
