// tokenize, run as a user runs it, on the bundled model's tokenizer.

#include <fstream>
#include <string>
#include <vector>

#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Flags = std::vector<std::string>;

// What one line of input becomes.
Json Convert(const std::string& line, Flags flags = {"--output=json"}) {
  flags.push_back("--input=-");
  const ProgramResult result = RunProgram("tokenize", flags, {line, "", {}});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

TEST(Tokenize, EncodesAndDecodes) {
  EXPECT_EQ(Convert(R"({"text": "Hello world"})"),
            Json({{"token_ids", {1, 373, 435, 4039, 1553}}}));
  EXPECT_EQ(Convert(R"({"token_ids": [1, 373, 435, 4039, 1553]})"),
            Json({{"text", "Hello world"}}));
}

TEST(Tokenize, KeepsTextThroughBothDirections) {
  const std::string text = "Привет – 🐕\n\ttabs  and é";
  const Json ids = Convert(Json{{"text", text}}.dump());
  EXPECT_EQ(Convert(ids.dump())["text"].get<std::string>(), text);
}

TEST(Tokenize, SpecialTokensFollowTheFlags) {
  const std::string line = R"({"text": "a</s>"})";
  const Json as_text = Convert(line, {"--parse_special=false"});
  EXPECT_NE(as_text["token_ids"].back(), 2);
  const Json as_token = Convert(line);
  EXPECT_EQ(as_token["token_ids"].back(), 2);
  EXPECT_EQ(as_token["token_ids"].front(), 1);
  const Json bare = Convert(line, {"--add_special_tokens=false"});
  EXPECT_NE(bare["token_ids"].front(), 1);
  EXPECT_EQ(Convert(as_token.dump(), {"--skip_special_tokens=false"})["text"],
            "<s> a</s>");
}

TEST(Tokenize, ReadsEveryKindOfTokenizerFile) {
  const std::string folder = RunfilePath("apps/bundled_model");
  const std::string line = R"({"text": "War and Peace"})";
  const Json ids = Convert(line);
  EXPECT_EQ(Convert(line, {"--tokenizer=" + folder + "/tokenizer.json"}), ids);
  EXPECT_EQ(Convert(line, {"--tokenizer=" + folder + "/tokenizer.model"}), ids);
  EXPECT_EQ(Convert(line, {"--model=" + folder}), ids);
}

TEST(Tokenize, MeasuresAWholeFile) {
  const std::string path = ::testing::TempDir() + "/text.txt";
  std::ofstream(path) << "War and Peace";
  const ProgramResult result = RunProgram("tokenize", {"--text_file=" + path});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  const Json json =
      Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(
      keys, ElementsAre("bytes", "tokens", "seconds", "megabytes_per_second"));
  EXPECT_EQ(json["bytes"], 13);
  EXPECT_EQ(json["tokens"],
            Convert(R"({"text": "War and Peace"})")["token_ids"].size());
}

TEST(Tokenize, RefusesBadLinesWithTheirNumber) {
  for (const char* line :
       {"x", "[]", "{}", R"({"text": 1})", R"({"text": "a", "token_ids": [1]})",
        R"({"token_ids": [1.5]})", "{\"text\": \"\xff\"}"}) {
    const ProgramResult result = RunProgram("tokenize", {"--input=-"},
                                            {std::string("\n") + line, "", {}});
    EXPECT_EQ(result.exit_status, 1) << line;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr("-:2")) << line;
  }
}

TEST(Tokenize, IdsOutsideTheVocabularyDecodeToNothing) {
  EXPECT_EQ(Convert(R"({"token_ids": [4096, 2147483647]})"),
            Json({{"text", ""}}));
}

TEST(Tokenize, RefusesContradictoryFlags) {
  const std::vector<std::pair<Flags, std::string>> cases = {
      {{}, "--input"},
      {{"--input=a", "--text_file=b"}, "--text_file"},
      {{"--input=a", "--model=b", "--tokenizer=c"}, "contradict"},
      {{"--input=no/such/file"}, "no/such/file"},
      {{"--input=-", "--output=text"}, "--output"},
      {{"--input=-", "--tokenizer=no/such/file"}, "no/such/file"},
      {{"--input=-", "--tokenizer=/dev/null"}, "/dev/null"},
  };
  for (const auto& [flags, reason] : cases) {
    const ProgramResult result = RunProgram("tokenize", flags);
    EXPECT_EQ(result.exit_status, 1) << reason;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(reason));
  }
}

}  // namespace
}  // namespace nibble
