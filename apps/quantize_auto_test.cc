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
  ProgramResult RunAuto(const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {"--auto",
                                    "--calibration=" + Path("text.txt"),
                                    "--samples=4",
                                    "--length=64",
                                    "--limit=2",
                                    "--task=perplexity:" + Path("text.txt"),
                                    "--out=" + Path("model.nib")};
    all.insert(all.end(), flags.begin(), flags.end());
    return Run(all);
  }

  std::string folder_;
};

TEST_F(QuantizeAuto, FindsARecipeWhoseFileGivesTheModelAgain) {
  // AWQ, so that the recipe has a calibration to be faithful to.
  std::ofstream(Path("space.textproto"))
      << "recipes { transform: AWQ grid { group_size: 32 } }";
  const ProgramResult run =
      RunAuto({"--tolerance=0.5", "--search_space=" + Path("space.textproto"),
               "--report=" + Path("report.json")});
  ASSERT_EQ(run.exit_status, 0) << run.error;
  EXPECT_THAT(run.output, HasSubstr("chosen: awq int4 g32 zeros"));
  EXPECT_FALSE(fs::exists(Path("model.nib.search")));

  const Json report = Json::parse(Contents(Path("report.json")), nullptr,
                                  /*allow_exceptions=*/false);
  const Json& search = report["search"];
  EXPECT_EQ(search["within_tolerance"], true);
  // The head in bf16, then in int8.
  ASSERT_EQ(search["trials"].size(), 2u);
  EXPECT_EQ(search["trials"][0]["verdict"], "passed");
  EXPECT_GT(search["trials"][0]["kl_divergence"], 0.0);
  EXPECT_FALSE(search["trials"][0]["damage"].empty());
  EXPECT_EQ(search["recipe"], Contents(Path("model.textproto")));

  const ProgramResult again =
      Run({"--recipe=" + Path("model.textproto"),
           "--calibration=" + Path("text.txt"), "--out=" + Path("again.nib")});
  ASSERT_EQ(again.exit_status, 0) << again.error;
  EXPECT_EQ(Contents(Path("again.nib")), Contents(Path("model.nib")));
}

// What the float model itself wrote, greedily, is likelier to it than to any
// other; two bits leave little of that.
TEST_F(QuantizeAuto, WritesTheBestAndExitsWith1WhereNoneIsWithinTolerance) {
  const Json golden =
      Json::parse(Contents(RunfilePath("apps/bundled_model/golden.json")),
                  nullptr, /*allow_exceptions=*/false);
  std::ofstream text(Path("greedy.txt"));
  for (const Json& prompt : golden["prompts"]) {
    text << prompt["text_with_prompt"].get<std::string>() << "\n";
  }
  text.close();
  const ProgramResult run =
      RunAuto({"--bits=2", "--group_size=128", "--symmetric=true", "--trials=2",
               "--task=perplexity:" + Path("greedy.txt")});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.error, HasSubstr("no recipe is within tolerance"));
  EXPECT_THAT(run.output, HasSubstr("NOT within tolerance"));
  EXPECT_TRUE(fs::exists(Path("model.nib")));
  EXPECT_TRUE(fs::exists(Path("model.textproto")));
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
  std::ofstream(Path("space.textproto")) << "recipes {\n head_bits: 3\n}";
  refused({"--search_space=" + Path("space.textproto")},
          Path("space.textproto") + ":2: head_bits: is 3");
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
