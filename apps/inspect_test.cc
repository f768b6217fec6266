// inspect, run as a user runs it, on sound and on broken files.

#include <stdlib.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr const char* kModelFiles[] = {"config.json", "model.safetensors",
                                       "tokenizer.json",
                                       "tokenizer_config.json"};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void Write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A copy of the bundled model that a test may damage.
std::string CopyOfBundledModel() {
  std::string folder = ::testing::TempDir() + "/model_XXXXXX";
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  for (const char* name : kModelFiles) {
    Write(folder + "/" + name,
          Read(RunfilePath("apps/bundled_model") + "/" + name));
  }
  return folder;
}

Json Inspect(const std::string& path, int expected_status) {
  const ProgramResult result = RunProgram("inspect", {path, "--output=json"});
  EXPECT_EQ(result.exit_status, expected_status) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

// The detail of check `name`, which must have come out as `ok`.
std::string Detail(const Json& report, const std::string& name, bool ok) {
  for (const Json& check : report["checks"]) {
    if (check["check"] != name) continue;
    EXPECT_EQ(check["ok"].get<bool>(), ok) << check.dump();
    return check["detail"].get<std::string>();
  }
  ADD_FAILURE() << "no check named " << name << " in " << report.dump();
  return "";
}

TEST(Inspect, DescribesAFolder) {
  const Json report = Inspect(RunfilePath("apps/bundled_model"), 0);
  EXPECT_EQ(report["kind"], "folder");
  EXPECT_EQ(report["configuration"]["family"], "llama");
  EXPECT_EQ(report["configuration"]["layers"], 6);
  EXPECT_EQ(report["configuration"]["kv_heads"], 4);
  EXPECT_EQ(report["totals"]["parameters"], 5770496);
  EXPECT_EQ(report["totals"]["tensors"], report["tensors"].size());
  EXPECT_EQ(report["tokenizer"]["tokens"], 4096);
  EXPECT_EQ(report["tokenizer"]["bos_id"], 1);
  EXPECT_EQ(Detail(report, "chat template", true), "none: a base model");
}

TEST(Inspect, ReportsForPeopleWithoutAFileName) {
  const ProgramResult result = RunProgram("inspect", {});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  // The bundled model.
  EXPECT_THAT(result.output, HasSubstr("layers.5.down.weight"));
  EXPECT_THAT(result.output, HasSubstr("int4"));
  EXPECT_THAT(result.output, HasSubstr("[4096,256]"));
}

TEST(Inspect, ListsOnlyTheTensorsThatMatch) {
  const ProgramResult result = RunProgram(
      "inspect", {RunfilePath("apps/bundled_model"),
                  "--tensors=layers\\.[05]\\..*q_proj", "--output=json"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  const Json report =
      Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  EXPECT_EQ(report["tensors"].size(), 2u);
  EXPECT_EQ(report["totals"]["parameters"], 5770496);
}

TEST(Inspect, DescribesSingleFiles) {
  const std::string folder = RunfilePath("apps/bundled_model");
  EXPECT_EQ(Inspect(folder + "/model.safetensors", 0)["kind"], "safetensors");
  for (const char* name : {"/tokenizer.json", "/tokenizer.model"}) {
    const Json report = Inspect(folder + name, 0);
    EXPECT_EQ(report["kind"], "tokenizer");
    EXPECT_EQ(report["tokenizer"]["tokens"], 4096);
  }
}

TEST(Inspect, SaysWhyAModelWouldBeRefused) {
  const std::string folder = CopyOfBundledModel();
  std::string config = Read(folder + "/config.json");
  const std::string heads = "\"num_attention_heads\": 8";
  ASSERT_NE(config.find(heads), std::string::npos);
  config.replace(config.find(heads), heads.size(),
                 "\"num_attention_heads\": 7");
  Write(folder + "/config.json", config);
  const Json report = Inspect(folder, 1);
  EXPECT_THAT(Detail(report, "model", false), HasSubstr("config.json"));
  // What is sound is still described.
  EXPECT_EQ(report["totals"]["parameters"], 5770496);
  EXPECT_EQ(report["tokenizer"]["tokens"], 4096);
}

TEST(Inspect, SaysThatATensorFileIsCut) {
  const std::string folder = CopyOfBundledModel();
  const std::string weights = Read(folder + "/model.safetensors");
  Write(folder + "/model.safetensors", weights.substr(0, weights.size() - 1));
  const Json report = Inspect(folder, 1);
  EXPECT_THAT(Detail(report, "tensors", false), HasSubstr("model.safetensors"));
}

TEST(Inspect, SaysWhatIsWrongWithTheTokenizer) {
  const std::string folder = CopyOfBundledModel();
  Write(folder + "/tokenizer.json", "{}");
  EXPECT_THAT(Detail(Inspect(folder, 1), "tokenizer", false),
              HasSubstr("tokenizer.json"));
}

TEST(Inspect, SaysWhatIsWrongWithTheChatTemplate) {
  const std::string folder = CopyOfBundledModel();
  Write(folder + "/chat_template.jinja", "{% for %}");
  EXPECT_THAT(Detail(Inspect(folder, 1), "chat template", false),
              HasSubstr("chat_template.jinja"));
}

TEST(Inspect, RefusesWhatItDoesNotKnow) {
  const std::string text = ::testing::TempDir() + "/notes.txt";
  Write(text, "hello");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{text}, "notes.txt"},          {{"no/such/file"}, "no/such/file"},
      {{"/dev/null"}, "/dev/null"},   {{"a", "b"}, "unexpected argument 'b'"},
      {{"--tensors=("}, "--tensors"}, {{"--output=xml"}, "--output"},
  };
  for (const auto& [flags, reason] : cases) {
    const ProgramResult result = RunProgram("inspect", flags);
    EXPECT_EQ(result.exit_status, 1) << reason;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(reason));
    EXPECT_EQ(result.output, "");
  }
}

TEST(Inspect, SurvivesAnEmptyGguf) {
  const std::string path = ::testing::TempDir() + "/empty.gguf";
  Write(path, "");
  EXPECT_THAT(Detail(Inspect(path, 1), "file", false), HasSubstr("empty.gguf"));
}

}  // namespace
}  // namespace nibble
