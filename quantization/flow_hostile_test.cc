// What the flow does with broken models, bad options, interruption and a full
// disk.
#include <sys/resource.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "quantization/flow.h"
#include "quantization/flow_test_fixture.h"
#include "tensor/dtype.h"
#include "tensor/io/packed_file.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TinyModelOptions;
using ::testing::AllOf;
using ::testing::HasSubstr;

using FlowHostileTest = FlowTest;

// Overwrites floats of a tensor in the model's file.
void Spoil(const std::string& model, const std::string& tensor, float value,
           int64_t count = 1) {
  size_t offset = 0;
  {
    const auto checkpoint = OpenCheckpoint(model);
    ASSERT_THAT(checkpoint, IsOk());
    const auto view = checkpoint->tensors->Find(tensor);
    ASSERT_THAT(view, IsOk());
    ASSERT_EQ(view->dtype, DType::kF32);
    const std::string bytes = ReadAll(model + "/model.safetensors");
    const auto at = absl::string_view(bytes).find(
        absl::string_view(reinterpret_cast<const char*>(view->data), 64));
    ASSERT_NE(at, absl::string_view::npos);
    offset = at + 40;
  }
  std::fstream file(model + "/model.safetensors",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  for (int64_t i = 0; i < count; ++i) {
    file.write(reinterpret_cast<const char*>(&value), sizeof(value));
  }
}

TEST_F(FlowHostileTest, RefusesWeightsThatAreNoNumbersByName) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::string tensor :
       {"model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.v_proj."
        "weight",
        "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"}) {
    for (const float value : {nan, -HUGE_VALF}) {
      WriteModel({});
      Spoil(model_, tensor, value);
      EXPECT_THAT(Quantize(), StatusIs(absl::StatusCode::kInvalidArgument,
                                       AllOf(HasSubstr(tensor),
                                             HasSubstr("model.safetensors"),
                                             HasSubstr("finite"))));
      ExpectNothingWritten();
    }
  }
}

TEST_F(FlowHostileTest, RefusesWeightsBeyondTheFormatsRange) {
  WriteModel({});
  Spoil(model_, "model.layers.0.mlp.down_proj.weight", 1e38f);
  EXPECT_THAT(Quantize(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("down_proj"), HasSubstr("2^126"))));
  WriteModel({});
  Spoil(model_, "lm_head.weight", 3.4e38f);
  EXPECT_THAT(Quantize(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("lm_head.weight"), HasSubstr("bf16"))));
  ExpectNothingWritten();
}

TEST_F(FlowHostileTest, OutliersAndDenormalsWidenOnlyTheirMatrix) {
  WriteModel({});
  Spoil(model_, "model.layers.0.mlp.up_proj.weight", 4e6f);
  Spoil(model_, "model.layers.1.self_attn.o_proj.weight", 1e-41f, 40);
  // All but a few weights of the second matrix are normal: its scale is, too.
  NIBBLE_ASSERT_OK_AND_ASSIGN(const QuantizationReport report, Quantize());
  for (const QuantizedTensor& tensor : report.tensors) {
    EXPECT_EQ(tensor.wide_scales, tensor.name == "layers.0.up.weight")
        << tensor.name;
  }
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto file, PackedFile::Open(out_));
  EXPECT_THAT(file->VerifyAll(), IsOk());
}

TEST_F(FlowHostileTest, SaysWhichOptionIsBad) {
  WriteModel({});
  QuantizationOptions options;
  options.rounding.group_size = 31;
  EXPECT_THAT(Quantize(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("group size 31")));
  options.rounding = {5, 32, false};
  EXPECT_THAT(Quantize(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("5 bits")));
  options.rounding = {};
  options.keep_float = "he(ad";
  EXPECT_THAT(Quantize(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("\"he(ad\"")));
  options.keep_float = "^haed";
  EXPECT_THAT(Quantize(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                          AllOf(HasSubstr("\"^haed\""),
                                                HasSubstr("head.weight"))));
  ExpectNothingWritten();
}

TEST_F(FlowHostileTest, RefusesAPackedModelAndWritingOverTheModel) {
  WriteModel({});
  ASSERT_THAT(Quantize(), IsOk());
  const std::string before = ReadAll(out_);
  EXPECT_THAT(QuantizeCheckpoint(out_, folder_ + "/b", {}, pool_, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(out_), HasSubstr("packed already"))));
  EXPECT_THAT(QuantizeCheckpoint(out_, out_, {}, pool_, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the model itself")));
  EXPECT_EQ(ReadAll(out_), before);
  EXPECT_THAT(QuantizeCheckpoint(model_, folder_, {}, pool_, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(folder_)));
  EXPECT_THAT(
      QuantizeCheckpoint(model_, folder_ + "/no/such/a", {}, pool_, nullptr),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/a")));
}

TEST_F(FlowHostileTest, RefusesAnEmbeddedFileThatIsNone) {
  WriteModel({});
  fs::create_directories(model_ + "/tokenizer.json");
  EXPECT_THAT(Quantize(), StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("tokenizer.json")));
  ExpectNothingWritten();
}

TEST_F(FlowHostileTest, CancellingLeavesNoFileWheneverItComes) {
  WriteModel({});
  for (int after = 0; after < 20; ++after) {
    std::atomic<bool> cancelled(false);
    QuantizationOptions options;
    options.cancelled = &cancelled;
    int steps = 0;
    const auto report = QuantizeCheckpoint(
        model_, out_, options, pool_,
        [&](int64_t, int64_t) { cancelled = ++steps > after; });
    EXPECT_THAT(report, StatusIs(absl::StatusCode::kCancelled,
                                 HasSubstr("nothing was written")));
    ExpectNothingWritten();
  }
}

TEST_F(FlowHostileTest, AModelThatChangesMeanwhileIsNotBelieved) {
  WriteModel({});
  bool touched = false;
  const auto report = QuantizeCheckpoint(
      model_, out_, {}, pool_, [&](int64_t done, int64_t total) {
        if (touched || done < total / 2) return;
        touched = true;
        Spoil(model_, "lm_head.weight", 7.0f);
      });
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kAborted,
                               HasSubstr("model.safetensors")));
  ExpectNothingWritten();
}

TEST_F(FlowHostileTest, FullDiskLeavesNoFile) {
  TinyModelOptions model;
  model.vocabulary = 5000;
  WriteModel(model);
  // A limit on the size of files stands in for the disk.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tight = {200'000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto report = Quantize();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(out_));
  ExpectNothingWritten();
  EXPECT_THAT(Quantize(), IsOk());
}

}  // namespace
}  // namespace nibble
