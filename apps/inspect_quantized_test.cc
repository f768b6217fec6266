// inspect on folders that hold quantized matrices, sound and broken.

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/block_format.h"
#include "testing/gguf_builder.h"
#include "testing/matchers.h"
#include "testing/quantized_layers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StoredTensors;

constexpr char kGptq[] =
    R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true,
        "format": "gptq_v2"})";

class InspectQuantizedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat(
        ::testing::TempDir(), "/inspect_quantized_",
        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(dir_);
  }

  void WriteModel(const std::string& settings,
                  absl::FunctionRef<void(StoredTensors&)> change) {
    ASSERT_THAT(testing::WriteQuantizedLlama(dir_, settings, change), IsOk());
  }
  void WriteModel(const std::string& settings) {
    WriteModel(settings, [](StoredTensors&) {});
  }

  static Json Inspect(const std::string& path, int expected_status) {
    const ProgramResult result = RunProgram("inspect", {path, "--output=json"});
    EXPECT_EQ(result.exit_status, expected_status) << result.error;
    return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  }

  // The detail of the check, which must have come out as `ok`.
  static std::string Detail(const Json& report, const std::string& name,
                            bool ok) {
    for (const Json& check : report["checks"]) {
      if (check["check"] != name) continue;
      EXPECT_EQ(check["ok"].get<bool>(), ok) << check.dump();
      return check["detail"].get<std::string>();
    }
    ADD_FAILURE() << "no check named " << name << " in " << report.dump();
    return "";
  }

  std::string dir_;
};

TEST_F(InspectQuantizedTest, SaysHowAFolderIsQuantized) {
  WriteModel(kGptq);
  const Json report = Inspect(dir_, 0);
  EXPECT_EQ(report["configuration"]["family"], "llama");
  const Json& quantization = report["quantization"];
  EXPECT_EQ(quantization["method"], "gptq");
  EXPECT_EQ(quantization["format"], "gptq_v2");
  EXPECT_EQ(quantization["bits"], 4);
  EXPECT_EQ(quantization["group_size"], 32);
  EXPECT_EQ(quantization["symmetric"], true);
  EXPECT_EQ(quantization["act_order"], false);
  EXPECT_EQ(quantization["coded_matrices"], 14);
  EXPECT_EQ(quantization["float_matrices"], 2);  // embedding and head
  EXPECT_EQ(quantization["warnings"], Json::array());
  EXPECT_THAT(Detail(report, "weights", true),
              HasSubstr("8 matrices as int4 in groups of 32"));
  EXPECT_EQ(report["types"]["i32"], "28 tensors");
  const ProgramResult text = RunProgram("inspect", {dir_});
  EXPECT_EQ(text.exit_status, 0) << text.error;
  EXPECT_THAT(text.output,
              AllOf(HasSubstr("quantization"), HasSubstr("gptq_v2"),
                    HasSubstr("as int4 in groups of 32")));
}

TEST_F(InspectQuantizedTest, ShowsWarnings) {
  // v2 zeros under v1's name.
  WriteModel(
      R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true})");
  const Json report = Inspect(dir_, 0);
  ASSERT_EQ(report["quantization"]["warnings"].size(), 1u);
  EXPECT_THAT(report["quantization"]["warnings"][0].get<std::string>(),
              AllOf(HasSubstr("and 13 more"), HasSubstr("gptq_v2")));
}

TEST_F(InspectQuantizedTest, SaysWhatWouldBeRefusedAndWhy) {
  WriteModel(R"({"quant_method": "fp8"})");
  Json report = Inspect(dir_, 1);
  EXPECT_THAT(Detail(report, "model", false),
              AllOf(HasSubstr("config.json"), HasSubstr("\"fp8\""),
                    HasSubstr("gptq, awq")));
  EXPECT_EQ(Detail(report, "tensors", true), "all can be read");
  WriteModel(kGptq, [](StoredTensors& tensors) {
    tensors.Remove("model.layers.1.mlp.up_proj.scales");
  });
  EXPECT_THAT(Detail(Inspect(dir_, 1), "model", false),
              HasSubstr("model.layers.1.mlp.up_proj.scales"));
}

TEST_F(InspectQuantizedTest, CountsTheTypesOfAGgufFile) {
  const std::vector<float> norm(32);
  const std::vector<std::byte> blocks(6 * sizeof(BlockQ8_0));
  testing::GgufBuilder gguf;
  gguf.F32("norm", {32}, norm)
      .Tensor("a", {3, 64}, testing::GgufBuilder::kTypeQ8_0, blocks)
      .Tensor("b", {6, 32}, testing::GgufBuilder::kTypeQ8_0, blocks);
  std::filesystem::create_directories(dir_);
  const std::string path = dir_ + "/model.gguf";
  gguf.Write(path);
  const Json report = Inspect(path, 1);  // no model: there is no metadata
  EXPECT_EQ(report["types"]["q8_0"], "2 tensors, kept as codes");
  EXPECT_EQ(report["types"]["f32"], "1 tensor");
}

TEST_F(InspectQuantizedTest, ExplainsEveryFolderOfOtherTools) {
  const auto folders = testing::SharedDataPath("quantized");
  if (!folders) GTEST_SKIP() << "shared data is not beside the checkout";
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*folders)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    const Json report = Inspect(entry.path().string(), 0);
    EXPECT_EQ(report["quantization"]["bits"], 4) << entry.path();
    EXPECT_EQ(report["quantization"]["warnings"], Json::array());
    EXPECT_EQ(report["quantization"]["act_order"].get<bool>(),
              entry.path().filename() == "tolstoy-gptj-gptq-g32-act");
    EXPECT_TRUE(report.contains("tokenizer"));
    ++seen;
  }
  EXPECT_EQ(seen, 6);
}

}  // namespace
}  // namespace nibble
