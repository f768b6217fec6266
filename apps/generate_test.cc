// generate, run as a user runs it, on the bundled model.

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Lt;

using Flags = std::vector<std::string>;

Json Golden() {
  std::ifstream file(RunfilePath("apps/bundled_model/golden.json"));
  return Json::parse(file, nullptr, /*allow_exceptions=*/false);
}

// The float checkpoint that the bundled model was made from, and that the
// goldens were computed with.
std::string FloatCheckpoint() {
  return "--model=" + RunfilePath("apps/bundled_model");
}

// What --output=json prints; the run must succeed.
Json GenerateJson(Flags flags, const ProgramInput& input = {}) {
  flags.push_back("--output=json");
  const ProgramResult result = RunProgram("generate", flags, input);
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

std::string Text(const Flags& flags) {
  const Json json = GenerateJson(flags);
  return json.is_object() ? json["text"].get<std::string>() : "";
}

TEST(Generate, WritesTheGoldenTextOfAFloatCheckpoint) {
  const Json all = Golden();
  for (const Json& golden : all["prompts"]) {
    const std::string prompt = golden["text"].get<std::string>();
    const Json json =
        GenerateJson({FloatCheckpoint(), "--prompt=" + prompt,
                      "--temperature=0", "--max_tokens=64", "--ignore_eos"});
    EXPECT_EQ(json["prompt_token_ids"], golden["ids"]) << prompt;
    EXPECT_EQ(json["token_ids"], golden["greedy_ids"]) << prompt;
    EXPECT_EQ(prompt + json["text"].get<std::string>(),
              golden["text_with_prompt"].get<std::string>());
  }
}

TEST(Generate, JsonHasTheDocumentedFields) {
  const Json json =
      GenerateJson({"--prompt=War and", "--max_tokens=5", "--threads=2",
                    "--isa=scalar", "--ignore_eos"});
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(keys, ElementsAre("model", "prompt_token_ids", "token_ids",
                                "text", "finish_reason", "usage", "timing",
                                "peak_rss_bytes", "isa", "threads"));
  EXPECT_EQ(json["usage"]["prompt_tokens"], json["prompt_token_ids"].size());
  EXPECT_EQ(json["usage"]["completion_tokens"], 5);
  EXPECT_EQ(json["token_ids"].size(), 5u);
  EXPECT_EQ(json["finish_reason"], "length");
  for (const char* key : {"load_ms", "prefill_ms", "prefill_tokens_per_second",
                          "decode_ms_per_token", "decode_tokens_per_second"}) {
    EXPECT_GT(json["timing"][key].get<double>(), 0) << key;
  }
  EXPECT_GT(json["peak_rss_bytes"].get<int64_t>(), 1 << 20);
  EXPECT_EQ(json["isa"], "scalar");
  EXPECT_EQ(json["threads"], 2);
}

TEST(Generate, StreamsTheSameTextAsJsonHolds) {
  const Flags flags = {"--prompt=Prince", "--max_tokens=20"};
  const ProgramResult result = RunProgram("generate", flags);
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_EQ(result.output, Text(flags) + "\n");
}

TEST(Generate, TheSeedDecidesTheText) {
  const auto with_seed = [](absl::string_view seed) {
    return Text({"--prompt=The", "--max_tokens=24", "--temperature=1",
                 absl::StrCat("--seed=", seed)});
  };
  const std::string zero = with_seed("0");
  EXPECT_EQ(zero, with_seed("0"));
  EXPECT_NE(zero, with_seed("1"));
  EXPECT_NE(zero, with_seed("18446744073709551615"));
}

TEST(Generate, ThreadsDoNotChangeTheText) {
  const auto with_threads = [](int threads) {
    return Text({"--prompt=The", "--max_tokens=24",
                 absl::StrCat("--threads=", threads)});
  };
  EXPECT_EQ(with_threads(1), with_threads(3));
}

TEST(Generate, StopsAtTheFirstOfSeveralStopStrings) {
  const Json golden = Golden()["prompts"][0];
  const std::string whole = golden["greedy_text"].get<std::string>();
  ASSERT_TRUE(absl::StrContains(whole, "not been in"));
  const Json json = GenerateJson(
      {FloatCheckpoint(),
       absl::StrCat("--prompt=", golden["text"].get<std::string>()),
       "--temperature=0", "--max_tokens=64", "--stop=same way",
       "--stop=not been in", "--stop=never there"});
  EXPECT_EQ(json["text"].get<std::string>(),
            whole.substr(0, whole.find("not been in")));
  EXPECT_EQ(json["finish_reason"], "stop");
}

TEST(Generate, TakesThePromptInEveryForm) {
  const Flags greedy = {"--temperature=0", "--max_tokens=8"};
  const auto run = [&](const std::string& flag, const ProgramInput& input) {
    Flags flags = greedy;
    flags.push_back(flag);
    return GenerateJson(flags, input)["token_ids"];
  };
  const std::string file = ::testing::TempDir() + "/prompt.txt";
  std::ofstream(file) << "The French were";
  const Json ids = run("--prompt=The French were", {});
  EXPECT_EQ(ids.size(), 8u);
  EXPECT_EQ(run("--prompt_file=" + file, {}), ids);
  EXPECT_EQ(run("--prompt_file=-", {"The French were", "", {}}), ids);
  const Json prompt_ids =
      GenerateJson({"--prompt=The French were", "--max_tokens=1"});
  std::string list = prompt_ids["prompt_token_ids"].dump();
  EXPECT_EQ(run("--token_ids=" + list.substr(1, list.size() - 2), {}), ids);
  // Relative to where the user stands under `bazel run`.
  EXPECT_EQ(run("--prompt_file=prompt.txt",
                {"", "", {{"BUILD_WORKING_DIRECTORY", ::testing::TempDir()}}}),
            ids);
}

TEST(Generate, KeepsSpecialTokensInThePromptAsTextUnlessAsked) {
  const auto prompt_ids = [](const Flags& flags) {
    return GenerateJson(flags)["prompt_token_ids"];
  };
  const Json plain = prompt_ids({"--prompt=a</s>", "--max_tokens=1"});
  const Json asked =
      prompt_ids({"--prompt=a</s>", "--max_tokens=1", "--parse_special"});
  EXPECT_EQ(asked.back(), 2);
  for (const Json& id : plain) EXPECT_NE(id, 2);
}

TEST(Generate, TakesAnyBytesAsPrompt) {
  for (const std::string& prompt :
       {std::string(), std::string("\xff\xfe broken"), std::string("a\0b", 3),
        std::string("\xF0\x9F\x90")}) {
    const Json json =
        GenerateJson({"--prompt_file=-", "--max_tokens=4"}, {prompt, "", {}});
    EXPECT_TRUE(json.is_object());
    EXPECT_EQ(json["token_ids"].size(), 4u);
  }
}

TEST(Generate, BeamSearchIsDeterministic) {
  const Flags flags = {"--prompt=The", "--num_beams=3", "--max_tokens=8"};
  const std::string text = Text(flags);
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(text, Text(flags));
}

TEST(Generate, ABannedTokenNeverComes) {
  const Json golden = Golden()["prompts"][0];
  const int32_t first = golden["greedy_ids"][0].get<int32_t>();
  const Json json = GenerateJson(
      {FloatCheckpoint(),
       absl::StrCat("--prompt=", golden["text"].get<std::string>()),
       "--temperature=0", "--max_tokens=16",
       absl::StrCat("--logit_bias=", first, ":-inf")});
  for (const Json& id : json["token_ids"]) EXPECT_NE(id, first);
}

TEST(Generate, EndsWhereTheContextIsFull) {
  std::string ids = "1";
  for (int i = 1; i < 1020; ++i) ids += ",300";
  const Json json =
      GenerateJson({"--token_ids=" + ids, "--max_tokens=1000", "--ignore_eos"});
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_THAT(json["token_ids"].size(), Lt(10u));
}

TEST(Generate, AnInterruptLeavesValidOutput) {
  // Slow enough that it cannot be done before the signal.
  RunningProgram program("generate",
                         {"--prompt=The", "--max_tokens=1000", "--ignore_eos",
                          "--isa=scalar", "--threads=1", "--output=json"});
  program.AwaitInterruptHandler();
  program.Interrupt();
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_status, 0) << result.error;
  const Json json =
      Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << result.output;
  EXPECT_THAT(json["token_ids"].size(), Lt(1000u));
  EXPECT_EQ(json["finish_reason"], "stop");
}

}  // namespace
}  // namespace nibble
