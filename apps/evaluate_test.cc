// evaluate, run as a user runs it, on the bundled model.

#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kSentence[] =
    "The count came into the room and looked at the old prince. ";

std::string WriteFile(const std::string& name, const std::string& bytes) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  return path;
}

std::string Repeated(int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += kSentence;
  return text;
}

// The float checkpoint that the bundled model was made from.
std::string FloatModel() { return RunfilePath("apps/bundled_model"); }

// A file of each task, as --task takes them.
std::string AllTasks() {
  WriteFile("piqa-labels.lst", "1\n0\n");
  return absl::StrCat(
      "perplexity:", WriteFile("text.txt", Repeated(20)), ",lambada:",
      WriteFile("lambada.jsonl",
                "{\"text\": \"He looked at the old prince\"}\n"
                "{\"text\": \"She did not see him\"}\n"),
      ",hellaswag:",
      WriteFile("hellaswag.jsonl",
                R"({"activity_label": "War", "ctx_a": "They rode.", "ctx_b":)"
                R"( "the men", "endings": ["stopped.", "went on."],)"
                R"( "label": 1})"),
      ",piqa:",
      WriteFile(
          "piqa.jsonl",
          "{\"goal\": \"Ride\", \"sol1\": \"a hat\", \"sol2\": \"a horse\"}\n"
          "{\"goal\": \"Eat\", \"sol1\": \"bread\", \"sol2\": \"snow\"}\n"),
      ",winogrande:",
      WriteFile("winogrande.jsonl",
                R"({"context_options": ["So Pierre", "So Natasha"],)"
                R"( "continuation": "smiled at her.", "gold": 0})"));
}

Json Evaluate(std::vector<std::string> flags) {
  flags.push_back("--output=json");
  const ProgramResult result = RunProgram("evaluate", flags);
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

std::vector<std::string> Keys(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST(Evaluate, JsonHasTheDocumentedFields) {
  const Json json = Evaluate({"--task=" + AllTasks()});
  EXPECT_THAT(Keys(json), ElementsAre("model", "tasks", "tokens_read",
                                      "seconds", "peak_rss_bytes", "threads"));
  const Json& tasks = json["tasks"];
  EXPECT_THAT(Keys(tasks), ElementsAre("perplexity", "lambada", "hellaswag",
                                       "piqa", "winogrande"));
  EXPECT_THAT(Keys(tasks["perplexity"]),
              ElementsAre("perplexity", "mean_nll", "stderr", "word_perplexity",
                          "top1_accuracy", "windows", "tokens"));
  EXPECT_THAT(
      Keys(tasks["lambada"]),
      ElementsAre("accuracy", "stderr", "mean_logprob", "mean_logprob_stderr",
                  "perplexity", "samples", "tokens"));
  EXPECT_THAT(Keys(tasks["piqa"]),
              ElementsAre("accuracy", "stderr", "accuracy_norm", "stderr_norm",
                          "samples", "tokens"));
  EXPECT_THAT(Keys(tasks["winogrande"]),
              ElementsAre("accuracy", "stderr", "samples", "tokens"));
  EXPECT_NEAR(tasks["perplexity"]["perplexity"].get<double>(),
              std::exp(tasks["perplexity"]["mean_nll"].get<double>()), 1e-9);
  EXPECT_EQ(tasks["piqa"]["samples"], 2);
  // One sample has no standard error.
  EXPECT_TRUE(tasks["hellaswag"]["stderr"].is_null());
}

TEST(Evaluate, ComparesWithTheFloatModel) {
  const Json json = Evaluate(
      {"--task=" + AllTasks(), "--against=" + FloatModel(), "--window=64"});
  EXPECT_EQ(json["against"], FloatModel());
  for (const auto& [name, task] : json["tasks"].items()) {
    SCOPED_TRACE(name);
    // INT4 weights of a trained model: it differs, and not by much.
    EXPECT_GT(task["kl_divergence"].get<double>(), 0.0);
    EXPECT_LT(task["kl_divergence"].get<double>(), 0.2);
    EXPECT_GT(task["greedy_agreement"].get<double>(), 0.5);
    for (const char* key :
         {"kl_stderr", "right_to_wrong", "wrong_to_right", "flips_p_value",
          "accuracy_difference", "accuracy_difference_stderr", "against"}) {
      EXPECT_TRUE(task.contains(key)) << key;
    }
  }
  const Json& text = json["tasks"]["perplexity"];
  EXPECT_NEAR(text["nll_difference"].get<double>(),
              text["mean_nll"].get<double>() -
                  text["against"]["mean_nll"].get<double>(),
              1e-9);
}

TEST(Evaluate, AModelDoesNotDifferFromItself) {
  const std::string model = FloatModel();
  const Json json =
      Evaluate({"--model=" + model, "--against=" + model, "--limit=1",
                "--task=perplexity:" + WriteFile("self.txt", Repeated(20))});
  EXPECT_EQ(json["tasks"]["perplexity"]["kl_divergence"], 0.0);
  EXPECT_EQ(json["tasks"]["perplexity"]["greedy_agreement"], 1.0);
  EXPECT_EQ(json["tasks"]["perplexity"]["windows"], 1);
}

TEST(Evaluate, TextNamesEachTask) {
  const ProgramResult result = RunProgram(
      "evaluate",
      {"--task=" + AllTasks(), "--limit=1", "--against=" + FloatModel()});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  for (const char* part : {"perplexity", "lambada", "hellaswag", "piqa",
                           "winogrande", "KL", "flips", "a second"}) {
    EXPECT_THAT(result.output, HasSubstr(part));
  }
}

TEST(Evaluate, RefusesWhatItCannotDoInOneLine) {
  const std::string text = "perplexity:" + WriteFile("ok.txt", Repeated(3));
  const std::string broken =
      WriteFile("broken.jsonl", "{\"text\": \"a b\"}\n{\"text\": 1}\n");
  const std::string tiny = ::testing::TempDir() + "/evaluate_tiny";
  ASSERT_TRUE(testing::WriteTinyLlama(tiny, testing::TinyModelOptions()).ok());
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "--task"},
      {{"--task=arc:x"}, "perplexity:FILE, lambada:FILE"},
      {{"--task=perplexity:no/such/file"}, "no/such/file"},
      {{"--task=perplexity:" + WriteFile("none.txt", "")}, "none.txt"},
      {{"--task=perplexity:" + WriteFile("bin.txt", "a\xff")}, "bin.txt"},
      {{"--task=lambada:" + broken}, "broken.jsonl:2: \"text\""},
      {{"--task=" + text, "--limit=0"}, "--limit=0"},
      {{"--task=" + text, "--window=0"}, "--window=0"},
      {{"--task=" + text, "--window=100000"}, "window"},
      {{"--task=" + text, "--output=xml"}, "--output=xml"},
      {{"--task=" + text, "--against_weights=int4"}, "--against_weights"},
      {{"--task=" + text, "--against_weights=f32"}, "without --against"},
      {{"--task=" + text, "--against=no/such/model"}, "no/such/model"},
      {{"--task=" + text, "--against=" + tiny}, "vocabulary"},
      {{"--task=" + text, "--model=" + tiny}, "tokenizer"},
  };
  for (const auto& [flags, part] : cases) {
    SCOPED_TRACE(part);
    const ProgramResult result = RunProgram("evaluate", flags);
    EXPECT_EQ(result.exit_status, 1);
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(part));
    EXPECT_EQ(result.output, "");
  }
}

TEST(Evaluate, StopsAtSigint) {
  // Some minutes of work.
  const std::string text = WriteFile("long.txt", Repeated(40000));
  RunningProgram program("evaluate", {"--task=perplexity:" + text});
  program.AwaitInterruptHandler();
  program.Interrupt();
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_EQ(result.output, "");
  EXPECT_THAT(result.error, HasSubstr("interrupted; there is nothing"));
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
}

}  // namespace
}  // namespace nibble
