// What exports refuse, and what they leave behind when they fail.

#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/export/export_test_models.h"
#include "quantization/export/gguf_export.h"
#include "quantization/export/gptq_export.h"
#include "quantization/flow.h"
#include "quantization/flow_test_fixture.h"
#include "quantization/round_to_nearest.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

class ExportHostileTest : public ::testing::Test {
 protected:
  ExportHostileTest()
      : folder_(testing::ExportTestFolder()), model_(folder_ + "/model") {
    gguf_.rounding = {4, 32, true};
    gptq_ = gguf_;
  }

  absl::Status Gguf() const {
    return ExportGguf(model_, folder_ + "/out.gguf", gguf_, pool_, nullptr)
        .status();
  }
  absl::Status Gptq() const {
    return ExportGptq(model_, folder_ + "/out", gptq_, pool_, nullptr).status();
  }

  // Beside the model.
  void ExpectNothingWritten() const {
    for (const auto& entry : fs::directory_iterator(folder_)) {
      EXPECT_EQ(entry.path().filename(), "model") << entry.path();
    }
  }

  mutable ThreadPool pool_{2};
  std::string folder_, model_;
  QuantizationOptions gguf_, gptq_;
};

TEST_F(ExportHostileTest, WrongOptionsAreNamed) {
  testing::WriteFamily("llama", model_);
  gguf_.rounding.group_size = 128;
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, HasSubstr("groups of 128")));
  gguf_.rounding = {5, 32, true};
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, HasSubstr("5 bits")));
  gguf_.rounding = {4, 32, true};
  gguf_.keep_float = "(";
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, HasSubstr("keep_float \"(\"")));
  gguf_.keep_float = "^haed";
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, HasSubstr("^haed")));
  gptq_.rounding.group_size = 48;
  EXPECT_THAT(Gptq(), StatusIs(kInvalid, HasSubstr("48")));
  gptq_.rounding.group_size = 32;
  gptq_.rounding.bits = 16;
  EXPECT_THAT(Gptq(), StatusIs(kInvalid, HasSubstr("16 bits")));
  gptq_.rounding.bits = 4;
  gptq_.keep_float = "layers.0.down";
  EXPECT_THAT(Gptq(), StatusIs(kInvalid, HasSubstr("layers.0.down")));
  ExpectNothingWritten();
}

TEST_F(ExportHostileTest, FloatsHaveNoCodesToKeep) {
  testing::WriteFamily("llama", model_);
  gguf_.keep_codes = gptq_.keep_codes = true;
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, HasSubstr("not quantized")));
  EXPECT_THAT(Gptq(), StatusIs(kInvalid, HasSubstr("not quantized")));
  ExpectNothingWritten();
}

TEST_F(ExportHostileTest, CodesAreNotRoundedAgainIntoGptq) {
  testing::WriteFamily("llama", model_);
  ASSERT_THAT(Gptq(), IsOk());
  EXPECT_THAT(
      ExportGptq(folder_ + "/out", folder_ + "/two", gptq_, pool_, nullptr),
      StatusIs(kInvalid, AllOf(HasSubstr("quantized already"),
                               HasSubstr("--method=keep"))));
}

TEST_F(ExportHostileTest, WhatLlamaCppCannotRunIsRefused) {
  testing::TinyModelOptions llama = testing::ExportLlama();
  llama.extra_config =
      R"("rope_scaling": {"rope_type": "dynamic", "factor": 2.0})";
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  testing::WriteTokenizer(model_);
  EXPECT_THAT(Gguf(), StatusIs(kUnimplemented,
                               AllOf(HasSubstr(model_), HasSubstr("dynamic"))));
  testing::WriteFamily("falcon-7b", model_);
  std::string config = ReadAll(model_ + "/config.json");
  config.replace(config.find("\"alibi\": false"), 14, "\"alibi\": true ");
  testing::WriteText(model_ + "/config.json", config);
  EXPECT_THAT(Gguf(), StatusIs(kUnimplemented, HasSubstr("ALiBi")));
  ExpectNothingWritten();
}

TEST_F(ExportHostileTest, ShapesThatDoNotFillWordsAreNamed) {
  testing::TinyModelOptions llama = testing::ExportLlama();
  llama.ffn = 44;
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  EXPECT_THAT(Gptq(),
              StatusIs(kInvalid, AllOf(HasSubstr("mlp.gate_proj.weight"),
                                       HasSubstr("[44, 64]"),
                                       HasSubstr("multiples of 8"))));
  ExpectNothingWritten();
}

TEST_F(ExportHostileTest, ATokenizerThatIsMissingOrTooLargeIsAnError) {
  testing::TinyModelOptions llama = testing::ExportLlama();
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  EXPECT_THAT(Gguf(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(model_), HasSubstr("tokenizer.json"))));
  llama.vocabulary = 20;
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  testing::WriteTokenizer(model_);
  EXPECT_THAT(Gguf(), StatusIs(kInvalid, AllOf(HasSubstr("tokenizer.json"),
                                               HasSubstr("28 tokens"))));
  ExpectNothingWritten();
}

TEST_F(ExportHostileTest, NothingIsOverwritten) {
  testing::WriteFamily("llama", model_);
  ASSERT_THAT(Gguf(), IsOk());
  const std::string gguf = folder_ + "/out.gguf";
  const std::string before = ReadAll(gguf);
  EXPECT_THAT(ExportGguf(gguf, gguf, gguf_, pool_, nullptr),
              StatusIs(kInvalid, HasSubstr("the model itself")));
  EXPECT_EQ(ReadAll(gguf), before);
  EXPECT_THAT(ExportGptq(model_, model_, gptq_, pool_, nullptr),
              StatusIs(kInvalid, HasSubstr("is there already")));
  EXPECT_THAT(ExportGptq(model_, gguf, gptq_, pool_, nullptr),
              StatusIs(kInvalid, HasSubstr("is there already")));
  EXPECT_THAT(ExportGptq(gguf, folder_ + "/out", gptq_, pool_, nullptr),
              StatusIs(kInvalid, HasSubstr("Hugging Face folder")));
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
  // An empty folder is filled.
  fs::create_directories(folder_ + "/out");
  EXPECT_THAT(ExportGptq(model_, folder_ + "/out/", gptq_, pool_, nullptr),
              IsOk());
  EXPECT_TRUE(fs::exists(folder_ + "/out/config.json"));
  EXPECT_THAT(ExportGptq(model_, folder_ + "/no/such", gptq_, pool_, nullptr),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

TEST_F(ExportHostileTest, CancellingLeavesNothingWheneverItComes) {
  testing::WriteFamily("gptj", model_);
  for (int after = 0; after < 12; ++after) {
    std::atomic<bool> cancelled(false);
    QuantizationOptions options = gguf_;
    options.cancelled = &cancelled;
    int steps = 0;
    const auto step = [&](int64_t, int64_t) { cancelled = ++steps > after; };
    EXPECT_THAT(
        ExportGguf(model_, folder_ + "/out.gguf", options, pool_, step),
        StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
    cancelled = false;
    steps = 0;
    EXPECT_THAT(
        ExportGptq(model_, folder_ + "/out", options, pool_, step),
        StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
    ExpectNothingWritten();
  }
}

TEST_F(ExportHostileTest, FullDiskLeavesNothing) {
  testing::TinyModelOptions llama = testing::ExportLlama();
  llama.vocabulary = 5000;
  ASSERT_THAT(testing::WriteTinyLlama(model_, llama), IsOk());
  testing::WriteTokenizer(model_);
  // A limit on the size of files stands in for the disk.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tight = {200'000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const absl::Status gguf = Gguf(), gptq = Gptq();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(std::string(gguf.message()), HasSubstr("out.gguf"));
  EXPECT_THAT(std::string(gptq.message()), HasSubstr("model.safetensors"));
  EXPECT_FALSE(gguf.ok());
  EXPECT_FALSE(gptq.ok());
  ExpectNothingWritten();
  EXPECT_THAT(Gguf(), IsOk());
  EXPECT_THAT(Gptq(), IsOk());
}

TEST_F(ExportHostileTest, WeightsThatF16CannotHoldAreNamed) {
  testing::WriteFamily("gptj", model_);
  // The top byte of a half-precision number: infinity or NaN.
  const std::string path = model_ + "/model.safetensors";
  std::string file = ReadAll(path);
  file[file.size() - 1] = '\x7c';
  std::ofstream(path, std::ios::binary) << file;
  EXPECT_FALSE(Gguf().ok());
  EXPECT_THAT(std::string(Gguf().message()), HasSubstr(path));
  EXPECT_FALSE(Gptq().ok());
  ExpectNothingWritten();
}

}  // namespace
}  // namespace nibble
