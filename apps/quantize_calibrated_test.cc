// quantize with calibration, run as a user runs it.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class QuantizeCalibrated : public ::testing::Test {
 protected:
  QuantizeCalibrated() {
    folder_ = ::testing::TempDir() + "/quantize_calibrated_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_ + "/out");
    out_ = folder_ + "/out/model.nib";
    std::string text;
    for (int i = 0; i < 200; ++i) {
      absl::StrAppend(&text, "On day ", i, " the prince of house ", i * 7 % 31,
                      " walked ", i * i % 97, " miles through the snow.\n");
    }
    text_ = Write("text.txt", text);
  }

  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  // With few windows of the text, unless `flags` say otherwise.
  std::vector<std::string> Flags(const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {
        "--model=" + RunfilePath("apps/bundled_model"), "--out=" + out_,
        "--group_size=32"};
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  }

  std::vector<std::string> Calibrated(
      const std::vector<std::string>& flags) const {
    std::vector<std::string> all =
        Flags({"--calibration=" + text_, "--samples=6", "--length=64"});
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  }

  void ExpectRefused(const std::vector<std::string>& flags,
                     const std::string& reason) const {
    const ProgramResult result = RunProgram("quantize", flags);
    EXPECT_EQ(result.exit_status, 1) << reason;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(reason));
    EXPECT_EQ(result.output, "");
    EXPECT_THAT(Files(), IsEmpty()) << reason;
  }

  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ + "/out")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::string folder_, out_, text_;
};

TEST_F(QuantizeCalibrated, WritesAFileWithItsRecipeByEveryMethod) {
  for (const auto& [method, flags] :
       std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"gptq", {"--act_order=true", "--damping=0.02"}},
           {"awq", {"--scale_steps=4"}},
           {"teq", {"--iterations=2", "--batch=2"}},
           {"signround",
            {"--preset=light", "--iterations=2", "--refinements=1"}}}) {
    std::vector<std::string> all =
        Calibrated({"--method=" + method, "--output=json"});
    all.insert(all.end(), flags.begin(), flags.end());
    const ProgramResult result = RunProgram("quantize", all);
    ASSERT_EQ(result.exit_status, 0) << result.error;
    const Json json = Json::parse(result.output, nullptr, false);
    ASSERT_TRUE(json.is_object()) << result.output;
    EXPECT_THAT(json["method"].get<std::string>(), HasSubstr(method));
    EXPECT_EQ(json["calibrated"]["blocks"].size(), 6u);
    EXPECT_EQ(json["calibrated"]["windows"], 6);
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
    EXPECT_THAT(file->VerifyAll(), testing::IsOk());
    EXPECT_EQ(file->manifest().record().recipe(),
              json["recipe"].get<std::string>());
    EXPECT_THAT(Files(), ElementsAre("model.nib"));
  }
}

TEST_F(QuantizeCalibrated, RecipeOfTheRecordGivesTheFileAgain) {
  ASSERT_EQ(RunProgram("quantize", Calibrated({"--method=gptq"})).exit_status,
            0);
  const std::string bytes = ReadAll(out_);
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  const std::string recipe =
      Write("again.textproto", file->manifest().record().recipe());
  const ProgramResult result =
      RunProgram("quantize", {"--model=" + RunfilePath("apps/bundled_model"),
                              "--out=" + out_, "--recipe=" + recipe,
                              "--calibration=" + text_, "--threads=3"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(ReadAll(out_) == bytes);
}

TEST_F(QuantizeCalibrated, SearchesRangesWithoutText) {
  const ProgramResult result =
      RunProgram("quantize", Flags({"--search", "--offset=minimums"}));
  ASSERT_EQ(result.exit_status, 0) << result.error;
  EXPECT_THAT(result.output, HasSubstr("rtn"));
  const ProgramResult weighed =
      RunProgram("quantize", Calibrated({"--search", "--importance"}));
  EXPECT_EQ(weighed.exit_status, 0) << weighed.error;
}

TEST_F(QuantizeCalibrated, SaysWhereTheTextIsShort) {
  const ProgramResult result =
      RunProgram("quantize", Calibrated({"--method=gptq", "--samples=100000"}));
  ASSERT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
  EXPECT_THAT(result.error, AllOf(HasSubstr(text_), HasSubstr("100000")));
}

TEST_F(QuantizeCalibrated, LeavesATextThatTheRecipeDoesNotReadUnread) {
  const std::string recipe =
      Write("r.textproto", "round_to_nearest { search: true }");
  const ProgramResult result =
      RunProgram("quantize", {"--model=" + RunfilePath("apps/bundled_model"),
                              "--out=" + out_, "--recipe=" + recipe,
                              "--calibration=" + text_});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_EQ(result.error, "");
}

TEST_F(QuantizeCalibrated, KeepsTheHeadByAnyPatternThatMatchesIt) {
  for (const char* pattern : {"head", "head.weight", "^he", ""}) {
    const ProgramResult result = RunProgram(
        "quantize", Flags({"--search", absl::StrCat("--keep_float=", pattern),
                           "--output=json"}));
    ASSERT_EQ(result.exit_status, 0) << result.error;
    const Json json = Json::parse(result.output, nullptr, false);
    EXPECT_EQ(json["tensors"].front()["format"], "int4") << pattern;
    EXPECT_EQ(json["tensors"].back()["format"], *pattern ? "bf16" : "int8")
        << pattern;
  }
}

TEST_F(QuantizeCalibrated, RefusesContradictionsInOneLine) {
  const std::string recipe = Write("r.textproto", "rounding: GPTQ");
  const std::string text = "--calibration=" + text_;
  ExpectRefused(Flags({"--method=gptq"}), "--calibration=FILE is needed");
  ExpectRefused(Flags({text}), "--calibration");
  ExpectRefused(Flags({"--method=keep", text}), "--method=keep");
  ExpectRefused(
      Flags({"--method=awq", "--rounding=nearest", text, "--damping=0.1"}),
      "--damping=0.1: has no effect here; it is an option of gptq");
  ExpectRefused(Flags({"--method=signround", text, "--start_with_gptq=false",
                       "--refinements=1"}),
                "--refinements=1: has no effect here");
  ExpectRefused(Flags({"--method=gptq", text, "--iterations=3"}),
                "--iterations=3");
  ExpectRefused(Flags({"--rounding=gptq", text}), "--rounding=gptq");
  ExpectRefused(Flags({"--recipe=" + recipe, text}), "--group_size");
  ExpectRefused({"--out=" + out_, "--recipe=" + recipe, text, "--method=gptq"},
                "--method");
  ExpectRefused({"--out=" + out_, "--recipe=" + recipe, text, "--seed=2"},
                "--recipe");
  ExpectRefused({"--out=" + out_, "--recipe=none.textproto", text},
                "none.textproto");
  ExpectRefused(Flags({"--resume"}), "--resume");
  ExpectRefused(Flags({"--offset=sideways"}), "--offset=sideways");
  ExpectRefused(Flags({"--offset=zeros", "--symmetric=true"}), "--offset");
  ExpectRefused(Flags({"--head_bits=4"}), "head_bits");
  ExpectRefused(Flags({"--keep_float=^head", "--head_bits=8"}),
                "--head_bits=8: contradicts --keep_float=^head");
  ExpectRefused(Flags({"--keep_float=", "--head_bits=16"}),
                "--head_bits=16: contradicts --keep_float=,");
  ExpectRefused(Flags({"--search", "--keep_float=none"}),
                "'none' matches no matrix");
  ExpectRefused(Flags({"--method=signround", text, "--preset=fast"}),
                "--preset=fast");
  ExpectRefused(Flags({"--method=gptq", text, "--damping=-1"}), "damping");
  ExpectRefused(Flags({"--method=gptq", text, "--samples=0"}), "samples");
  ExpectRefused(Flags({"--method=gptq", text, "--length=2000", "--samples=2"}),
                "the model was made for");
}

TEST_F(QuantizeCalibrated, RefusesWhatIsNoCalibrationText) {
  const auto expect = [&](const std::string& name, const std::string& bytes,
                          const std::string& reason) {
    const std::string path = Write(name, bytes);
    ExpectRefused(Flags({"--method=gptq", "--calibration=" + path}), path);
    ExpectRefused(Flags({"--method=gptq", "--calibration=" + path}), reason);
  };
  expect("empty.txt", "", "empty");
  expect("blank.txt", "\n \n", "no text");
  expect("short.txt", "A short text.", "too few");
  expect("binary.txt", std::string("\0\1\2", 3), "zero byte");
  expect("latin.txt", "caf\xE9", "UTF-8");
  ExpectRefused(Flags({"--method=gptq", "--calibration=none.txt"}), "none.txt");
}

TEST_F(QuantizeCalibrated, GoesOnWhereItWasInterruptedOrKilled) {
  const std::vector<std::string> flags =
      Calibrated({"--method=signround", "--iterations=40", "--samples=24"});
  ASSERT_EQ(RunProgram("quantize", flags).exit_status, 0);
  const std::string whole = ReadAll(out_);
  std::vector<std::string> resumed = flags;
  resumed.push_back("--resume");
  for (const bool interrupt : {true, false}) {
    fs::remove(out_);
    {
      RunningProgram program("quantize", flags);
      // Until the first block is there; then the destructor kills.
      for (int i = 0; i < 60'000; ++i) {
        if (fs::exists(out_ + ".work/block-0.nib")) break;
        absl::SleepFor(absl::Milliseconds(1));
      }
      if (interrupt) {
        program.Interrupt();
        const ProgramResult result = program.Wait();
        ASSERT_EQ(result.exit_status, 1);
        EXPECT_TRUE(IsOneLine(result.error)) << result.error;
        EXPECT_THAT(result.error, HasSubstr("--resume"));
      }
    }
    EXPECT_THAT(Files(), ElementsAre("model.nib.work"));
    const ProgramResult refused = RunProgram("quantize", flags);
    EXPECT_EQ(refused.exit_status, 1);
    EXPECT_THAT(refused.error, HasSubstr("--resume"));
    const ProgramResult result = RunProgram("quantize", resumed);
    ASSERT_EQ(result.exit_status, 0) << result.error;
    EXPECT_TRUE(ReadAll(out_) == whole);
    EXPECT_THAT(Files(), ElementsAre("model.nib"));
  }
}

TEST_F(QuantizeCalibrated, WritesAFolderWhoseNameEndsInASlash) {
  const ProgramResult result = RunProgram(
      "quantize",
      Calibrated({"--method=gptq", "--refinements=0", "--format=gptq",
                  "--out=" + folder_ + "/out/f//"}));
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_THAT(Files(), ElementsAre("f"));
  EXPECT_TRUE(fs::exists(folder_ + "/out/f/model.safetensors"));
}

TEST_F(QuantizeCalibrated, RefusesZerosInAGgufFileBeforeTheWork) {
  const std::string out = "--out=" + folder_ + "/out/model.gguf";
  const auto expect = [&](const std::string& recipe, const std::string& name) {
    ExpectRefused({"--model=" + RunfilePath("apps/bundled_model"), out,
                   "--format=gguf", "--recipe=" + Write("r.textproto", recipe)},
                  "has no zeros, which the recipe gives " + name);
  };
  expect("grid { group_size: 32 }", "layers.0.qkv.weight");
  expect(
      "grid { group_size: 32 offset: MINIMUMS } "
      "layers { pattern: 'layers.3.down' offset: ZEROS }",
      "layers.3.down.weight");
  ExpectRefused(Flags({out, "--format=gguf", "--offset=zeros"}),
                "--offset=zeros: contradicts --format=gguf");
  // Zeros that no matrix has.
  const std::string recipe = Write(
      "r.textproto", "grid { group_size: 32 } layers { pattern: '.' bits: 8 }");
  const ProgramResult result =
      RunProgram("quantize", {"--model=" + RunfilePath("apps/bundled_model"),
                              out, "--format=gguf", "--recipe=" + recipe});
  EXPECT_EQ(result.exit_status, 0) << result.error;
}

TEST_F(QuantizeCalibrated, WritesOtherFormatsAndRefusesWhatTheyCannotHold) {
  const std::string model = "--model=" + RunfilePath("apps/bundled_model");
  const std::string gguf = folder_ + "/out/model.gguf";
  const ProgramResult result =
      RunProgram("quantize", Calibrated({"--method=awq", "--format=gguf",
                                         "--out=" + gguf, "--scale_steps=2"}));
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_TRUE(fs::exists(gguf));
  fs::remove(gguf);
  ExpectRefused({model, "--calibration=" + text_, "--method=awq",
                 "--format=gguf", "--group_size=64", "--out=" + gguf},
                "--format=gguf");
  ExpectRefused(
      {model, "--calibration=" + text_, "--method=gptq", "--format=gptq",
       "--head_bits=8", "--out=" + folder_ + "/out/folder"},
      "--format=gptq");
}

}  // namespace
}  // namespace nibble
