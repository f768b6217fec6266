// quantize --auto, run as a user runs it.

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::HasSubstr;

// Sentences of a novel's words, in no sensible order.
std::string RandomProse(int words) {
  const char* const vocabulary[] = {
      "the",     "prince", "Andrew",   "said", "to",     "Natasha", "that",
      "general", "had",    "been",     "in",   "army",   "and",     "Pierre",
      "looked",  "at",     "her",      "face", "with",   "a",       "smile",
      "when",    "French", "soldiers", "came", "from",   "Moscow",  "he",
      "was",     "not",    "what",     "she",  "thought"};
  constexpr size_t kCount = sizeof(vocabulary) / sizeof(vocabulary[0]);
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < words; ++i) {
    text += vocabulary[random() % kCount];
    text += i % 17 == 16 ? ".\n" : " ";
  }
  return text;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class QuantizeAuto : public ::testing::Test {
 protected:
  QuantizeAuto() {
    folder_ = ::testing::TempDir() + "/quantize_auto_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream(Path("text.txt")) << RandomProse(3000);
  }

  std::string Path(const std::string& name) const {
    return folder_ + "/" + name;
  }

  // Of the bundled model's checkpoint.
  ProgramResult Run(const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {"--model=" +
                                    RunfilePath("apps/bundled_model")};
    all.insert(all.end(), flags.begin(), flags.end());
    return RunProgram("quantize", all);
  }

  // With a small calibration and task; `flags` come on top.
  std::vector<std::string> AutoFlags(
      const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {"--auto",
                                    "--calibration=" + Path("text.txt"),
                                    "--samples=4",
                                    "--length=64",
                                    "--limit=2",
                                    "--task=perplexity:" + Path("text.txt"),
                                    "--out=" + Path("model.nib")};
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  }

  ProgramResult RunAuto(const std::vector<std::string>& flags) const {
    return Run(AutoFlags(flags));
  }

  // The flag for a file of these recipes.
  std::string SearchSpace(const std::string& recipes) const {
    std::ofstream(Path("space.textproto")) << recipes;
    return "--search_space=" + Path("space.textproto");
  }

  // The report of a run of theirs.
  Json ReadReport() const {
    return Json::parse(Contents(Path("report.json")), nullptr,
                       /*allow_exceptions=*/false);
  }

  // The flag for a task whose text the float model itself wrote, greedily: it
  // is likelier to it than to any other.
  std::string GreedyTask() const {
    const Json golden =
        Json::parse(Contents(RunfilePath("apps/bundled_model/golden.json")),
                    nullptr, /*allow_exceptions=*/false);
    std::ofstream text(Path("greedy.txt"));
    for (const Json& prompt : golden["prompts"]) {
      text << prompt["text_with_prompt"].get<std::string>() << "\n";
    }
    return "--task=perplexity:" + Path("greedy.txt");
  }

  // By the command of docs/auto.md.
  void ExpectTheRecipeGivesTheModelAgain() const {
    const ProgramResult again = Run({"--recipe=" + Path("model.textproto"),
                                     "--calibration=" + Path("text.txt"),
                                     "--out=" + Path("again.nib")});
    ASSERT_EQ(again.exit_status, 0) << again.error;
    EXPECT_EQ(Contents(Path("again.nib")), Contents(Path("model.nib")));
  }

  std::string folder_;
};

TEST_F(QuantizeAuto, FindsARecipeWhoseFileGivesTheModelAgain) {
  // AWQ, so that the recipe has a calibration to be faithful to.
  const ProgramResult run = RunAuto(
      {"--tolerance=0.5",
       SearchSpace("recipes { transform: AWQ grid { group_size: 32 } }"),
       "--report=" + Path("report.json")});
  ASSERT_EQ(run.exit_status, 0) << run.error;
  EXPECT_THAT(run.output, HasSubstr("chosen: awq int4 g32 zeros"));
  EXPECT_FALSE(fs::exists(Path("model.nib.search")));

  const Json report = ReadReport();
  EXPECT_GT(report["tensors"][0]["relative_error"], 0.0);
  const Json& search = report["search"];
  EXPECT_EQ(search["within_tolerance"], true);
  // The head in bf16, then in int8.
  ASSERT_EQ(search["trials"].size(), 2u);
  EXPECT_EQ(search["trials"][0]["verdict"], "passed");
  EXPECT_GT(search["trials"][0]["kl_divergence"], 0.0);
  EXPECT_FALSE(search["trials"][0]["damage"].empty());
  EXPECT_EQ(search["recipe"], Contents(Path("model.textproto")));

  ExpectTheRecipeGivesTheModelAgain();
}

TEST_F(QuantizeAuto, FindsARecipeWithoutTextWhoseFileGivesTheModelAgain) {
  const ProgramResult run = RunAuto({"--tolerance=0.5", "--group_size=32"});
  ASSERT_EQ(run.exit_status, 0) << run.error;
  EXPECT_THAT(run.output, HasSubstr("chosen: rtn int4 g32 zeros"));
  ExpectTheRecipeGivesTheModelAgain();
}

TEST_F(QuantizeAuto, WritesAFolderWhoseNameEndsInASlash) {
  const ProgramResult run =
      RunAuto({"--tolerance=0.5", "--format=gptq", "--out=" + Path("folder/")});
  ASSERT_EQ(run.exit_status, 0) << run.error;
  EXPECT_TRUE(fs::exists(Path("folder/model.safetensors")));
  EXPECT_TRUE(fs::exists(Path("folder.textproto")));
}

TEST_F(QuantizeAuto, OffsetNarrowsTheSearchForAGgufFile) {
  const std::string gguf = "--out=" + Path("model.gguf");
  const ProgramResult run =
      RunAuto({"--tolerance=0.5", "--format=gguf", "--offset=minimums", gguf});
  ASSERT_EQ(run.exit_status, 0) << run.error;
  // Q4_0, with half the parameters, would come first.
  EXPECT_THAT(run.output, HasSubstr("chosen: rtn int4 g32 minimums"));
  const ProgramResult zeros =
      RunAuto({"--format=gguf", "--offset=zeros", gguf});
  EXPECT_EQ(zeros.exit_status, 1);
  EXPECT_THAT(zeros.error,
              HasSubstr("--offset=zeros: contradicts --format=gguf"));
}

// Two bits leave little of the text's likelihood.
TEST_F(QuantizeAuto, WritesTheBestAndExitsWith1WhereNoneIsWithinTolerance) {
  const ProgramResult run =
      RunAuto({"--bits=2", "--group_size=128", "--symmetric=true", "--trials=2",
               GreedyTask()});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.error, HasSubstr("no recipe is within tolerance"));
  EXPECT_THAT(run.output, HasSubstr("NOT within tolerance"));
  EXPECT_TRUE(fs::exists(Path("model.nib")));
  EXPECT_TRUE(fs::exists(Path("model.textproto")));
}

TEST_F(QuantizeAuto, RaisesMatricesOfInt8ToFloats) {
  const ProgramResult run =
      RunAuto({"--tolerance=1e-9", "--trials=2", GreedyTask(),
               SearchSpace("recipes { grid { bits: 8 } }"),
               "--report=" + Path("report.json")});
  const Json report = ReadReport();
  const Json& trials = report["search"]["trials"];
  ASSERT_EQ(trials.size(), 2u) << run.error;
  ASSERT_EQ(trials[0]["verdict"], "failed") << "a figure better by chance";
  const std::string raised = trials[1]["recipe_text"];
  EXPECT_THAT(raised, HasSubstr("bits: 16"));
  EXPECT_LT(trials[0]["bytes"], trials[1]["bytes"]);
}

TEST_F(QuantizeAuto, SaysHowToGoOnWhereItWasInterrupted) {
  // Some minutes of work.
  std::ofstream(Path("long.txt")) << RandomProse(300'000);
  std::vector<std::string> flags =
      AutoFlags({"--task=perplexity:" + Path("long.txt"), "--limit=100000",
                 "--model=" + RunfilePath("apps/bundled_model")});
  RunningProgram program("quantize", flags);
  program.AwaitInterruptHandler();
  program.Interrupt();
  const ProgramResult run = program.Wait();
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_TRUE(IsOneLine(run.error)) << run.error;
  EXPECT_THAT(run.error, AllOf(HasSubstr("interrupted"), HasSubstr("--resume"),
                               HasSubstr(Path("model.nib.search"))));
}

TEST_F(QuantizeAuto, ThrowsAwayNoTrialsUnasked) {
  fs::create_directories(Path("model.nib.search"));
  const std::string journal = Path("model.nib.search/journal.textproto");
  std::ofstream(journal) << "identity: \"of another search\"";
  const std::vector<std::string> flags = {
      SearchSpace("recipes { rounding: NEAREST }"), "--tolerance=10"};
  const ProgramResult refused = RunAuto(flags);
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_TRUE(IsOneLine(refused.error)) << refused.error;
  EXPECT_THAT(refused.error,
              AllOf(HasSubstr(Path("model.nib.search") + ": holds"),
                    HasSubstr("--resume")));
  EXPECT_EQ(Contents(journal), "identity: \"of another search\"");
  const ProgramResult resumed = RunAuto({flags[0], flags[1], "--resume"});
  EXPECT_EQ(resumed.exit_status, 0) << resumed.error;
  EXPECT_THAT(resumed.error, HasSubstr("0 trials of an earlier run"));
}

TEST_F(QuantizeAuto, RefusesFlagsThatMeanNothing) {
  const auto refused = [&](const std::vector<std::string>& flags,
                           const std::string& message) {
    const ProgramResult run = RunAuto(flags);
    EXPECT_EQ(run.exit_status, 1) << message;
    EXPECT_THAT(run.error, HasSubstr(message));
    EXPECT_FALSE(fs::exists(Path("model.nib")));
    EXPECT_FALSE(fs::exists(Path("model.nib.search")));
  };
  refused({"--tolerance=0"}, "--tolerance=0: must be above 0");
  refused({"--tolerance=-0.01"}, "--tolerance=-0.01: must be above 0");
  refused({"--tolerance=nan"}, "--tolerance=nan: must be above 0");
  refused({"--tolerance_mode=percent"}, "--tolerance_mode=percent: must be");
  refused({"--trials=0"}, "--trials=0: must be at least 1");
  refused({"--hours=-1"}, "--hours=-1: must be 0");
  refused({"--limit=0"}, "--limit=0: must be at least 1");
  refused({"--task="}, "--auto: needs --task=");
  refused({"--task=perplexity"}, "--task=perplexity: ");
  refused({"--task=perplexity:" + Path("none.txt")}, Path("none.txt"));
  refused({"--calibration="}, "--auto: needs --calibration=");
  refused({"--calibration=" + Path("none.txt")}, Path("none.txt"));
  refused({"--method=gptq"}, "--method=gptq: contradicts --auto");
  refused({"--recipe=" + Path("r")}, "contradicts --auto");
  refused({"--search=true"}, "contradicts --auto");
  refused({"--damping=0.5"}, "--damping=0.5: ");
  refused({"--bits=5"}, "bits: is 5");
  refused({"--samples=0"}, "calibration.samples: is 0");
  refused({"--keep_float=^none"}, "'^none' matches no matrix of a layer");
  refused({SearchSpace("recipes {\n head_bits: 3\n}")},
          Path("space.textproto") + ":2: head_bits: is 3");
}

TEST_F(QuantizeAuto, RefusesFlagsThatTheRecipesOfASearchSpaceSay) {
  const std::string space = SearchSpace("recipes { rounding: NEAREST }");
  for (const char* flag :
       {"--bits=4", "--group_size=64", "--symmetric=true", "--offset=minimums",
        "--keep_float=^head", "--head_bits=8"}) {
    const ProgramResult run = RunAuto({space, flag});
    EXPECT_EQ(run.exit_status, 1) << flag;
    EXPECT_TRUE(IsOneLine(run.error)) << run.error;
    const std::string name(flag, std::string(flag).find('='));
    EXPECT_THAT(run.error, HasSubstr(name + ": contradicts --search_space"));
  }
}

TEST_F(QuantizeAuto, RefusesItsFlagsWithoutAuto) {
  for (const char* flag : {"--task=perplexity:x", "--tolerance=0.01",
                           "--trials=3", "--hours=1", "--limit=5"}) {
    const ProgramResult run = Run({flag, "--out=" + Path("model.nib")});
    EXPECT_EQ(run.exit_status, 1) << flag;
    EXPECT_THAT(run.error, HasSubstr("has no effect without --auto"));
  }
}

}  // namespace
}  // namespace nibble
