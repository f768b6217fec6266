// quantize, run as a user runs it.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "apps/common/json.h"
#include "apps/testing/run_program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/io/packed_file.h"
#include "tensor/io/packed_manifest.pb.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::TinyModelOptions;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Quantize : public ::testing::Test {
 protected:
  Quantize() {
    folder_ = ::testing::TempDir() + "/quantize_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    out_ = folder_ + "/out/model.nib";
    fs::create_directories(folder_ + "/out");
  }

  // Of the bundled model's checkpoint; `flags` come on top.
  ProgramResult Run(const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {FloatCheckpoint(), "--out=" + out_};
    all.insert(all.end(), flags.begin(), flags.end());
    return RunProgram("quantize", all);
  }

  static std::string FloatCheckpoint() {
    return "--model=" + RunfilePath("apps/bundled_model");
  }

  // What a run, finished or not, left beside its output.
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ + "/out")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::string folder_, out_;
};

Json Parse(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

constexpr char kGptqConfig[] =
    R"("quantization_config": {"quant_method": "gptq", "bits": 4,
        "group_size": 128, "sym": false, "desc_act": false})";

// A Llama of zeros, in bf16 or as a GPTQ checkpoint, that takes no room on the
// disk: its file is a hole behind a header.
std::string WriteHollowModel(const std::string& folder,
                             TinyModelOptions options, bool gptq = false) {
  if (gptq) options.extra_config = kGptqConfig;
  fs::create_directories(folder);
  std::ofstream(folder + "/config.json") << testing::TinyLlamaConfig(options);
  Json header;
  int64_t end = 0;
  const auto put = [&](const std::string& name, const std::string& dtype,
                       std::vector<int64_t> shape) {
    const int64_t begin = end;
    end += dtype == "I32" ? 4 : 2;
    for (const int64_t size : shape) end = begin + (end - begin) * size;
    header[name] = {
        {"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
  };
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    const bool matrix = gptq && absl::StrContains(name, "_proj");
    if (!matrix) return put(name, gptq ? "F16" : "BF16", shape);
    name = std::string(absl::StripSuffix(name, "weight"));
    const int64_t outputs = shape[0], inputs = shape[1], groups = inputs / 128;
    put(name + "qweight", "I32", {inputs / 8, outputs});
    put(name + "qzeros", "I32", {groups, outputs / 8});
    put(name + "scales", "F16", {groups, outputs});
  };
  const int64_t hidden = options.hidden, ffn = options.ffn;
  const int64_t q_dim = options.heads * options.head_dim;
  const int64_t kv_dim = options.kv_heads * options.head_dim;
  add("model.embed_tokens.weight", {options.vocabulary, hidden});
  for (int64_t i = 0; i < options.layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    add(layer + "input_layernorm.weight", {hidden});
    add(layer + "self_attn.q_proj.weight", {q_dim, hidden});
    add(layer + "self_attn.k_proj.weight", {kv_dim, hidden});
    add(layer + "self_attn.v_proj.weight", {kv_dim, hidden});
    add(layer + "self_attn.o_proj.weight", {hidden, q_dim});
    add(layer + "post_attention_layernorm.weight", {hidden});
    add(layer + "mlp.gate_proj.weight", {ffn, hidden});
    add(layer + "mlp.up_proj.weight", {ffn, hidden});
    add(layer + "mlp.down_proj.weight", {hidden, ffn});
  }
  add("model.norm.weight", {hidden});
  add("lm_head.weight", {options.vocabulary, hidden});
  std::string text = JsonLine(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  const std::string path = folder + "/model.safetensors";
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << text;
  file.close();
  fs::resize_file(path, sizeof(size) + size + end);
  return folder;
}

// 690 MB, none of whose matrices is above 23 MB.
TinyModelOptions LargeModel() {
  TinyModelOptions options;
  options.hidden = 1024;
  options.ffn = 5632;
  options.layers = 16;
  options.heads = 8;
  options.kv_heads = 8;
  options.head_dim = 128;
  return options;
}

TEST_F(Quantize, JsonHasTheDocumentedFields) {
  const std::string report = folder_ + "/report.json";
  const ProgramResult result =
      Run({"--output=json", "--group_size=64", "--report=" + report});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  EXPECT_EQ(result.error, "");
  const Json json = Parse(result.output);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(keys, ElementsAre("model", "out", "method", "bits", "group_size",
                                "symmetric", "keep_float", "tensors", "totals",
                                "peak_rss_bytes", "threads"));
  EXPECT_EQ(json["bits"], 4);
  EXPECT_EQ(json["group_size"], 64);
  EXPECT_EQ(json["symmetric"], false);
  ASSERT_EQ(json["tensors"].size(), 25u);  // 6 layers of 4, and the tied head
  const Json& qkv = json["tensors"][0];
  EXPECT_EQ(qkv["name"], "layers.0.qkv.weight");
  EXPECT_EQ(qkv["format"], "int4");
  EXPECT_EQ(qkv["shape"], Json::array({512, 256}));
  EXPECT_GT(qkv["relative_error"].get<double>(), 0.01);
  EXPECT_LT(qkv["relative_error"].get<double>(), 0.2);
  EXPECT_TRUE(json["tensors"][24]["relative_error"].is_null());
  EXPECT_EQ(json["totals"]["file_bytes"],
            static_cast<int64_t>(fs::file_size(out_)));
  EXPECT_GT(json["totals"]["megabytes_per_second"].get<double>(), 0);
  std::ifstream file(report);
  EXPECT_EQ(Json::parse(file, nullptr, false), json);
}

TEST_F(Quantize, WritesAFileThatVerifies) {
  for (const auto& [flags, format] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{}, "int4"},
           {{"--symmetric=true", "--group_size=row"}, "int4"},
           {{"--bits=8", "--group_size=-1"}, "int8"},
           {{"--keep_float=", "--threads=3"}, "int4"}}) {
    const ProgramResult result = Run(flags);
    ASSERT_EQ(result.exit_status, 0) << result.error;
    EXPECT_THAT(result.output, AllOf(HasSubstr("layers.5.down.weight"),
                                     HasSubstr(format), HasSubstr("MB/s")));
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
    EXPECT_THAT(file->VerifyAll(), testing::IsOk());
    EXPECT_THAT(file->file_names(), ::testing::Contains("tokenizer.json"));
  }
}

TEST_F(Quantize, KeepsNoMatrixWhereKeepFloatIsEmpty) {
  const ProgramResult result = Run({"--keep_float=", "--output=json"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  for (const Json& tensor : Parse(result.output)["tensors"]) {
    EXPECT_EQ(tensor["format"], "int4") << tensor["name"];
  }
}

// The file in the repository is what the program makes of the checkpoint beside
// it today.
TEST_F(Quantize, MakesTheBundledModel) {
  const ProgramResult result = Run({"--group_size=32"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto made, PackedFile::Open(out_));
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const auto bundled,
      PackedFile::Open(RunfilePath("apps/bundled_model/tolstoy-llama.nib")));
  EXPECT_THAT(bundled->VerifyAll(), testing::IsOk());
  ASSERT_EQ(made->names(), bundled->names());
  ASSERT_EQ(made->file_names(), bundled->file_names());
  EXPECT_EQ(made->manifest().config().SerializeAsString(),
            bundled->manifest().config().SerializeAsString());
  // Layouts and checksums; where they lie depends on the record's length.
  for (int i = 0; i < made->manifest().tensors_size(); ++i) {
    auto a = made->manifest().tensors(i), b = bundled->manifest().tensors(i);
    a.mutable_range()->clear_offset();
    b.mutable_range()->clear_offset();
    EXPECT_EQ(a.SerializeAsString(), b.SerializeAsString()) << a.name();
  }
  for (const std::string& name : made->file_names()) {
    EXPECT_EQ(*made->FindFile(name), *bundled->FindFile(name)) << name;
  }
}

TEST_F(Quantize, TakesTheBundledModelsCheckpointWithoutAModel) {
  const ProgramResult result = RunProgram("quantize", {"--out=" + out_});
  EXPECT_EQ(result.exit_status, 0) << result.error;
  const ProgramResult again =
      RunProgram("quantize", {"--model=" + out_, "--out=" + out_ + ".nib"});
  EXPECT_EQ(again.exit_status, 1);
  EXPECT_THAT(again.error, HasSubstr("packed already"));
}

TEST_F(Quantize, RefusesBadFlagsInOneLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--bits=3"}, "--bits=3"},
      {{"--group_size=48"}, "--group_size=48"},
      {{"--group_size=0"}, "--group_size=0"},
      {{"--group_size=-128"}, "--group_size=-128"},
      {{"--group_size=many"}, "--group_size=many"},
      {{"--bits=8", "--symmetric=false"}, "--symmetric=false"},
      {{"--keep_float=("}, "keep_float \"(\""},
      {{"--keep_float=^none"}, "keep_float \"^none\""},
      {{"--method=magic"}, "--method=magic"},
      {{"--format=onnx"}, "--format=onnx"},
      {{"--threads=0"}, "--threads=0"},
      {{"--isa=sparc"}, "--isa=sparc"},
      {{"--output=xml"}, "--output=xml"},
      {{"--model=no/such/model"}, "no/such/model"},
      {{"--out=model.bin"}, "--out=model.bin"},
  };
  for (const auto& [flags, reason] : cases) {
    // The last --out counts.
    std::vector<std::string> all = {FloatCheckpoint(), "--out=" + out_};
    all.insert(all.end(), flags.begin(), flags.end());
    const ProgramResult result = RunProgram("quantize", all);
    EXPECT_EQ(result.exit_status, 1) << reason;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(reason));
    EXPECT_EQ(result.output, "");
  }
  EXPECT_THAT(RunProgram("quantize", {}).error, HasSubstr("--out"));
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(Quantize, StreamsModelsLargerThanItsMemory) {
  const std::string model = WriteHollowModel(folder_ + "/model", LargeModel());
  const ProgramResult result = Run({"--model=" + model, "--output=json"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  const Json json = Parse(result.output);
  int64_t largest = 0;
  for (const Json& tensor : json["tensors"]) {
    largest = std::max(largest, tensor["stored_bytes"].get<int64_t>());
  }
  EXPECT_EQ(largest, 2 * 5632 * 1024 * 2);
  const int64_t peak = json["peak_rss_bytes"].get<int64_t>();
  EXPECT_LT(peak, 2 * largest + 200'000'000);
  // And the bound means something here.
  EXPECT_GT(json["totals"]["stored_bytes"].get<int64_t>(), 4 * peak);
}

TEST_F(Quantize, KeepsCodesOfModelsLargerThanItsMemory) {
  TinyModelOptions options = LargeModel();
  options.layers = 32;
  const std::string model =
      WriteHollowModel(folder_ + "/model", options, /*gptq=*/true);
  const ProgramResult result =
      Run({"--model=" + model, "--method=keep", "--output=json"});
  ASSERT_EQ(result.exit_status, 0) << result.error;
  const Json json = Parse(result.output);
  EXPECT_EQ(json["method"], "keep");
  EXPECT_FALSE(json.contains("bits"));
  EXPECT_TRUE(json["totals"]["relative_error"].is_null());
  EXPECT_EQ(json["tensors"][1]["format"], "int4");
  const int64_t peak = json["peak_rss_bytes"].get<int64_t>();
  EXPECT_LT(peak, 150'000'000);
  EXPECT_GT(json["totals"]["stored_bytes"].get<int64_t>(), 2 * peak);
  fs::remove(out_);
}

TEST_F(Quantize, KeepNeedsAQuantizedCheckpointAndNothingElse) {
  const ProgramResult floats = Run({"--method=keep"});
  EXPECT_EQ(floats.exit_status, 1);
  EXPECT_TRUE(IsOneLine(floats.error)) << floats.error;
  EXPECT_THAT(floats.error, AllOf(HasSubstr("bundled_model: holds floats"),
                                  HasSubstr("--method=rtn")));
  for (const std::string flag :
       {"--bits=4", "--group_size=128", "--symmetric=true", "--symmetric=false",
        "--keep_float=^head"}) {
    const ProgramResult result = Run({"--method=keep", flag});
    EXPECT_EQ(result.exit_status, 1) << flag;
    EXPECT_TRUE(IsOneLine(result.error)) << result.error;
    EXPECT_THAT(result.error, HasSubstr(flag + ": contradicts --method=keep"));
  }
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(Quantize, InterruptLeavesNoFile) {
  const std::string model = WriteHollowModel(folder_ + "/model", LargeModel());
  RunningProgram program("quantize", {"--model=" + model, "--out=" + out_});
  program.AwaitInterruptHandler();
  program.Interrupt();
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_THAT(result.error, HasSubstr("interrupted; nothing was written"));
  EXPECT_TRUE(IsOneLine(result.error));
  EXPECT_EQ(result.output, "");
  EXPECT_THAT(Files(), ElementsAre());
}

TEST_F(Quantize, KillLeavesNoFile) {
  const std::string model = WriteHollowModel(folder_ + "/model", LargeModel());
  for (const int milliseconds : {50, 150, 300}) {
    RunningProgram program("quantize", {"--model=" + model, "--out=" + out_});
    program.AwaitInterruptHandler();
    absl::SleepFor(absl::Milliseconds(milliseconds));
    // The destructor kills it.
  }
  const std::vector<std::string> files = Files();
  // A run that was already through has written its file, and that is whole.
  for (const std::string& file : files) EXPECT_EQ(file, "model.nib");
  if (!files.empty()) {
    NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
    EXPECT_THAT(file->VerifyAll(), testing::IsOk());
  }
}

TEST_F(Quantize, FullDiskIsOneLine) {
  const ProgramResult result = RunProgram(
      "quantize", {FloatCheckpoint(), "--out=" + out_}, {"", "/dev/full", {}});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_TRUE(IsOneLine(result.error)) << result.error;
  // The model was written; only the report was not.
  EXPECT_EQ(Files(), std::vector<std::string>{"model.nib"});
  const ProgramResult report = Run({"--report=/dev/full"});
  EXPECT_EQ(report.exit_status, 1);
  EXPECT_THAT(report.error, HasSubstr("/dev/full"));
}

}  // namespace
}  // namespace nibble
