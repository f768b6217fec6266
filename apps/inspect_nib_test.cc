// inspect on packed model files, sound and damaged.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/flow.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void Write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// The bundled model, quantized once.
const std::string& NibPath() {
  static const std::string* const path = [] {
    auto* result = new std::string(::testing::TempDir() + "/model.nib");
    ThreadPool pool(1);
    QuantizationOptions options;
    options.rounding = {/*bits=*/4, /*group_size=*/64, /*symmetric=*/false};
    options.program_version = "test";
    const auto report =
        QuantizeCheckpoint(RunfilePath("apps/bundled_model"), *result, options,
                           pool, /*progress=*/nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
    return result;
  }();
  return *path;
}

Json Inspect(const std::string& path, int expected_status) {
  const ProgramResult result = RunProgram("inspect", {path, "--output=json"});
  EXPECT_EQ(result.exit_status, expected_status) << result.error;
  EXPECT_TRUE(IsOneLine(result.output)) << result.output;
  return Json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

// The details of the failed checks called `name`.
std::vector<std::string> Failures(const Json& report, const std::string& name) {
  std::vector<std::string> details;
  for (const Json& check : report["checks"]) {
    if (check["check"] == name && !check["ok"].get<bool>()) {
      details.push_back(check["detail"].get<std::string>());
    }
  }
  return details;
}

const Json& Named(const Json& list, const std::string& name) {
  for (const Json& entry : list) {
    if (entry["name"] == name) return entry;
  }
  ADD_FAILURE() << "no " << name << " in " << list.dump();
  return list[0];
}

// A copy with one bit of byte `at` changed.
std::string DamagedCopy(const std::string& name, size_t at) {
  std::string bytes = Read(NibPath());
  EXPECT_LT(at, bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  Write(path, bytes);
  return path;
}

TEST(InspectNib, DescribesAPackedModel) {
  const Json report = Inspect(NibPath(), 0);
  EXPECT_EQ(report["kind"], "nib");
  EXPECT_EQ(report["configuration"]["family"], "llama");
  EXPECT_EQ(report["configuration"]["layers"], 6);
  EXPECT_EQ(report["quantization"]["method"], "rtn");
  EXPECT_EQ(report["quantization"]["bits"], 4);
  EXPECT_EQ(report["quantization"]["group_size"], 64);
  EXPECT_EQ(report["quantization"]["symmetric"], false);
  EXPECT_EQ(report["quantization"]["program_version"], "test");
  EXPECT_EQ(report["totals"]["tensors"], report["tensors"].size());
  EXPECT_EQ(report["tokenizer"]["tokens"], 4096);
  EXPECT_EQ(Named(report["files"], "tokenizer.json")["bytes"],
            std::filesystem::file_size(
                RunfilePath("apps/bundled_model/tokenizer.json")));

  const Json& qkv = Named(report["tensors"], "layers.0.qkv.weight");
  EXPECT_EQ(qkv["dtype"], "int4");
  EXPECT_EQ(qkv["shape"][1], 256);
  EXPECT_EQ(qkv["group_size"], 64);
  EXPECT_EQ(qkv["symmetric"], false);
  const Json& norm = Named(report["tensors"], "final_norm.weight");
  EXPECT_EQ(norm["dtype"], "f32");
  EXPECT_EQ(norm["bytes"], 4 * 256);
  EXPECT_FALSE(norm.contains("group_size"));
}

TEST(InspectNib, ReportsForPeople) {
  const ProgramResult result =
      RunProgram("inspect", {NibPath(), "--tensors=layers.0.qkv"});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  EXPECT_THAT(result.output, HasSubstr("(nib)"));
  EXPECT_THAT(result.output, HasSubstr("groups of 64, zero points"));
  EXPECT_THAT(result.output, HasSubstr("bytes  tokenizer.json"));
  EXPECT_THAT(result.output, HasSubstr("method"));
  EXPECT_THAT(result.output, HasSubstr("embedded files match"));
}

TEST(InspectNib, NamesTheTensorThatIsDamaged) {
  const size_t end = std::filesystem::file_size(NibPath());
  const Json report = Inspect(DamagedCopy("tensor.nib", end - 1), 1);
  const std::vector<std::string> failures = Failures(report, "checksums");
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_THAT(failures[0], HasSubstr("tensor.nib: tensor 'head.weight'"));
  // What is sound is still described.
  EXPECT_EQ(report["tokenizer"]["tokens"], 4096);
}

TEST(InspectNib, NamesEveryPartThatIsDamaged) {
  std::string bytes = Read(NibPath());
  const size_t file =
      bytes.find(Read(RunfilePath("apps/bundled_model/tokenizer.json")));
  ASSERT_NE(file, std::string::npos);
  for (const size_t at : {file - 1, file, bytes.size() - 1}) {
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
  }
  const std::string path = ::testing::TempDir() + "/many.nib";
  Write(path, bytes);
  const std::vector<std::string> failures =
      Failures(Inspect(path, 1), "checksums");
  ASSERT_EQ(failures.size(), 3u);
  EXPECT_THAT(failures[0], HasSubstr("file 'tokenizer.json' is damaged"));
  EXPECT_THAT(failures[1], HasSubstr("tensor 'head.weight'"));
  EXPECT_THAT(failures[2],
              HasSubstr("the padding in front of file 'tokenizer.json'"));
}

TEST(InspectNib, NamesADamagedHeaderAndManifest) {
  for (const auto& [at, reason] : std::vector<std::pair<size_t, std::string>>{
           {0, "is not a .nib file"},
           {20, "the header is damaged"},
           {100, "the manifest is damaged"}}) {
    const Json report = Inspect(DamagedCopy("head.nib", at), 1);
    const std::vector<std::string> failures = Failures(report, "file");
    ASSERT_EQ(failures.size(), 1u) << reason;
    EXPECT_THAT(failures[0], HasSubstr("head.nib: " + reason));
  }
}

TEST(InspectNib, SaysThatAFileIsCut) {
  const std::string path = ::testing::TempDir() + "/cut.nib";
  const std::string bytes = Read(NibPath());
  Write(path, bytes.substr(0, bytes.size() / 2));
  const std::vector<std::string> failures = Failures(Inspect(path, 1), "file");
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_THAT(failures[0], HasSubstr("it is truncated"));
}

TEST(InspectNib, OneErrorLineNamesTheFile) {
  const std::string path = DamagedCopy("line.nib", 100);
  const ProgramResult result = RunProgram("inspect", {path});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
  EXPECT_THAT(result.error, HasSubstr("line.nib"));
  EXPECT_THAT(result.output, HasSubstr("FAILED"));
}

}  // namespace
}  // namespace nibble
