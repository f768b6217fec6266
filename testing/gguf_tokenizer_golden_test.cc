// Ids of the vocabularies inside GGUF files equal those recorded for them: the
// published .inp/.out pairs of four families, and SmolLM2's cases.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/load_tokenizer.h"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using ::nibble::testing::SharedDataPath;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string{std::istreambuf_iterator<char>(file), {}};
}

class PublishedGgufVocabulary : public ::testing::TestWithParam<std::string> {};

TEST_P(PublishedGgufVocabulary, GivesThePublishedIds) {
  const auto path = SharedDataPath(
      absl::StrCat("vocab-gguf/ggml-vocab-", GetParam(), ".gguf"));
  if (!path.has_value()) GTEST_SKIP() << "no reference data";
  const auto tokenizer = OpenTokenizer(*path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string input = ReadFile(*path + ".inp");
  const std::vector<std::string> texts =
      absl::StrSplit(input, "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines =
      absl::StrSplit(ReadFile(*path + ".out"), '\n');
  // The last separator has no text after it.
  ASSERT_GE(texts.size(), 46u);
  ASSERT_GE(lines.size(), 46u);
  for (size_t i = 0; i < 46; ++i) {
    std::vector<int32_t> expected;
    for (const auto& word : absl::StrSplit(lines[i], ' ', absl::SkipEmpty())) {
      int32_t id;
      ASSERT_TRUE(absl::SimpleAtoi(word, &id)) << lines[i];
      expected.push_back(id);
    }
    EXPECT_EQ((*tokenizer)->Encode(texts[i], {false, false}), expected)
        << GetParam() << " case " << i << ": " << texts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Files, PublishedGgufVocabulary,
                         ::testing::Values("llama-spm", "gpt-2", "mpt",
                                           "falcon"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// The model that tools/fetch_model puts into the user's cache.
std::optional<std::string> CachedSmolLm2() {
  std::filesystem::path cache;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME")) {
    cache = xdg;
  } else if (const char* home = std::getenv("HOME")) {
    cache = std::filesystem::path(home) / ".cache";
  }
  const std::string path = cache / "nibble/models/smollm2.gguf";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return path;
}

TEST(SmolLm2, EncodesAndDecodesLikeTheReference) {
  const auto cases = SharedDataPath("smollm2/tokenizer_cases.jsonl");
  const auto model = CachedSmolLm2();
  if (!cases.has_value() || !model.has_value()) {
    GTEST_SKIP() << "no reference data, or SmolLM2 was not fetched";
  }
  const auto tokenizer = OpenTokenizer(*model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), 1);
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_FALSE((*tokenizer)->adds_bos());
  std::ifstream file(*cases);
  int count = 0;
  for (std::string line; std::getline(file, line); ++count) {
    const auto item = nlohmann::json::parse(line);
    const std::vector<int32_t> ids = item["ids"];
    EXPECT_EQ((*tokenizer)->Encode(std::string(item["text"])), ids) << line;
    EXPECT_EQ((*tokenizer)->Decode(ids, /*skip_special_tokens=*/false),
              std::string(item["decoded"]))
        << line;
  }
  EXPECT_EQ(count, 400);
}

TEST(Stories260K, GgufAndLlama2cFormsOfTheVocabularyAgree) {
  const auto gguf = SharedDataPath("llama-stories260K/stories260K.gguf");
  const auto llama2c = SharedDataPath("llama-stories260K/tok512.bin");
  const auto text = SharedDataPath("text/tinystories-train-head.txt");
  if (!gguf.has_value() || !llama2c.has_value() || !text.has_value()) {
    GTEST_SKIP() << "no reference data";
  }
  const auto from_gguf = OpenTokenizer(*gguf);
  const auto from_llama2c = LoadLlama2cTokenizer(*llama2c);
  ASSERT_TRUE(from_gguf.ok()) << from_gguf.status();
  ASSERT_TRUE(from_llama2c.ok()) << from_llama2c.status();
  const std::string story = ReadFile(*text);
  const std::vector<int32_t> ids = (*from_gguf)->Encode(story);
  EXPECT_EQ((*from_llama2c)->Encode(story), ids);
  EXPECT_EQ((*from_llama2c)->Decode(ids), story);
}

}  // namespace
}  // namespace nibble
