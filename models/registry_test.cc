#include "models/registry.h"

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TinyModelOptions;
using testing::WriteText;

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat(
        ::testing::TempDir(), "/registry_test_",
        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }

  void WriteModel(const TinyModelOptions& options = {}) {
    ASSERT_THAT(testing::WriteTinyLlama(dir_, options), IsOk());
  }

  // Rewrites the weights with `change` applied to the list of tensors.
  template <class Change>
  void RewriteTensors(Change change) {
    absl::StatusOr<std::unique_ptr<TensorSource>> source =
        OpenSafetensorsFolder(dir_);
    ASSERT_THAT(source, IsOk());
    std::vector<NamedTensor> tensors;
    for (const std::string& name : (*source)->names()) {
      tensors.push_back({name, *(*source)->Find(name)});
    }
    change(tensors);
    ASSERT_THAT(WriteSafetensors(dir_ + "/model.safetensors", tensors), IsOk());
  }

  absl::Status OpenError() {
    const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir_);
    EXPECT_FALSE(checkpoint.ok());
    return checkpoint.status();
  }

  std::string dir_;
};

NamedTensor* FindTensor(std::vector<NamedTensor>& tensors,
                        const std::string& name) {
  for (NamedTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

constexpr char kUp[] = "model.layers.1.mlp.up_proj.weight";

TEST_F(RegistryTest, OpensAFolder) {
  WriteModel();
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir_);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ(checkpoint->path, dir_);
  EXPECT_EQ(checkpoint->format, "safetensors");
  EXPECT_EQ(checkpoint->config.family, "llama");
  EXPECT_EQ(checkpoint->config.layers, 2);
  EXPECT_EQ(checkpoint->gguf, nullptr);
}

TEST_F(RegistryTest, GenerationConfigOverridesSpecialIds) {
  WriteModel();
  WriteText(dir_ + "/generation_config.json",
            R"({"bos_token_id": 3, "eos_token_id": [4, 5]})");
  const absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir_);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ(checkpoint->config.bos_id, 3);
  EXPECT_THAT(checkpoint->config.eos_ids, ElementsAre(4, 5));
}

TEST_F(RegistryTest, GenerationConfigMayBeAbsentOrSilent) {
  WriteModel();
  WriteText(dir_ + "/generation_config.json", "{\"do_sample\": true}");
  absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(dir_);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_THAT(checkpoint->config.eos_ids, ElementsAre(2));
  fs::remove(dir_ + "/generation_config.json");
  checkpoint = OpenCheckpoint(dir_);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_THAT(checkpoint->config.eos_ids, ElementsAre(2));
}

TEST_F(RegistryTest, RejectsBrokenGenerationConfig) {
  WriteModel();
  WriteText(dir_ + "/generation_config.json", "{\"eos_token_id\": 97}");
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr("generation_config.json"),
                                          HasSubstr("eos_token_id"))));
  WriteText(dir_ + "/generation_config.json", "{");
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("generation_config.json")));
}

TEST_F(RegistryTest, RejectsUnknownArchitectureAndListsThoseItKnows) {
  WriteModel();
  TinyModelOptions options;
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{
           {"\"llama\"", "\"mamba\""},
           {"LlamaForCausalLM", "LlamaForSequenceClassification"},
           {"\"llama\"", "\"mistral\""},
           {"\"llama\"", "7"},
           {"[\"LlamaForCausalLM\"]", "[1]"}}) {
    WriteText(
        dir_ + "/config.json",
        absl::StrReplaceAll(testing::TinyLlamaConfig(options), {{from, to}}));
    const absl::Status status = OpenError();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("config.json")));
    if (to == "7" || to == "[1]") continue;
    EXPECT_THAT(
        std::string(status.message()),
        AllOf(HasSubstr("llama, mistral, qwen2"), HasSubstr("not supported")));
  }
  WriteText(dir_ + "/config.json", "{}");
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("llama, mistral, qwen2")));
}

TEST_F(RegistryTest, ArchitectureAloneNamesTheFamily) {
  WriteModel();
  WriteText(dir_ + "/config.json",
            absl::StrReplaceAll(testing::TinyLlamaConfig({}),
                                {{"\"model_type\"", "\"was_model_type\""},
                                 {"LlamaFor", "LLaMAFor"}}));
  EXPECT_THAT(OpenCheckpoint(dir_), IsOk());
}

TEST_F(RegistryTest, RejectsQuantizationSettingsOverFloatTensors) {
  TinyModelOptions options;
  options.extra_config =
      R"("quantization_config": {"quant_method": "gptq", "bits": 4,
                                 "group_size": 32})";
  WriteModel(options);
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr("model.safetensors"),
                                          HasSubstr("quantization_config"),
                                          HasSubstr(".qweight"))));
}

TEST_F(RegistryTest, RejectsQuantizedTensorsWithoutSettings) {
  WriteModel();
  const std::vector<int32_t> words(4 * 48);
  RewriteTensors([&](std::vector<NamedTensor>& tensors) {
    tensors.push_back({"model.layers.0.mlp.up_proj.qweight",
                       MakeTensorView<int32_t>(words, {4, 48})});
  });
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr("up_proj.qweight"),
                                          HasSubstr("quantization_config"))));
}

TEST_F(RegistryTest, RejectsMissingTensorByName) {
  WriteModel();
  RewriteTensors([](std::vector<NamedTensor>& tensors) {
    NamedTensor* up = FindTensor(tensors, kUp);
    tensors.erase(tensors.begin() + (up - tensors.data()));
  });
  EXPECT_THAT(OpenError(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("model.safetensors"), HasSubstr(kUp))));
}

TEST_F(RegistryTest, RejectsMissingHeadWhenNotTied) {
  TinyModelOptions options;
  options.tied_head = true;
  WriteModel(options);
  EXPECT_THAT(OpenCheckpoint(dir_), IsOk());
  options.tied_head = false;
  WriteText(dir_ + "/config.json", testing::TinyLlamaConfig(options));
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kNotFound,
                                    HasSubstr("lm_head.weight")));
}

TEST_F(RegistryTest, RejectsMoreLayersThanTensors) {
  WriteModel();
  TinyModelOptions options;
  options.layers = 3;
  WriteText(dir_ + "/config.json", testing::TinyLlamaConfig(options));
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kNotFound,
                                    HasSubstr("model.layers.2.")));
}

TEST_F(RegistryTest, RejectsFewerLayersThanTensors) {
  WriteModel();
  TinyModelOptions options;
  options.layers = 1;
  WriteText(dir_ + "/config.json", testing::TinyLlamaConfig(options));
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr("9 tensors"),
                                          HasSubstr("model.layers.1."))));
}

TEST_F(RegistryTest, RejectsWrongShapeAndSaysWhatIsExpected) {
  WriteModel();
  RewriteTensors([](std::vector<NamedTensor>& tensors) {
    FindTensor(tensors, kUp)->view.shape = Shape({32, 48});
  });
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr(kUp), HasSubstr("[32, 48]"),
                                          HasSubstr("[48, 32]"))));
}

TEST_F(RegistryTest, RejectsWrongDtypeByName) {
  WriteModel();
  RewriteTensors([](std::vector<NamedTensor>& tensors) {
    FindTensor(tensors, kUp)->view.dtype = DType::kI32;
  });
  EXPECT_THAT(OpenError(), StatusIs(absl::StatusCode::kInvalidArgument,
                                    AllOf(HasSubstr(kUp), HasSubstr("i32"))));
}

TEST_F(RegistryTest, RejectsTensorsThatTheModelDoesNotHave) {
  WriteModel();
  const std::vector<float> bias(48);
  RewriteTensors([&](std::vector<NamedTensor>& tensors) {
    tensors.push_back(
        {"model.layers.0.mlp.up_proj.bias", MakeTensorView<float>(bias, {48})});
  });
  EXPECT_THAT(OpenError(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("1 tensors"),
                             HasSubstr("model.layers.0.mlp.up_proj.bias"))));
}

TEST_F(RegistryTest, IgnoresStoredRotaryFrequenciesAndATiedHead) {
  TinyModelOptions options;
  options.tied_head = true;
  WriteModel(options);
  const std::vector<float> values(97 * 32);
  RewriteTensors([&](std::vector<NamedTensor>& tensors) {
    tensors.push_back(
        {"model.layers.0.self_attn.rotary_emb.inv_freq",
         MakeTensorView<float>(absl::MakeConstSpan(values).first(4), {4})});
    tensors.push_back(
        {"lm_head.weight", MakeTensorView<float>(values, {97, 32})});
  });
  EXPECT_THAT(OpenCheckpoint(dir_), IsOk());
}

TEST_F(RegistryTest, RejectsPathsThatAreNoModel) {
  EXPECT_THAT(OpenCheckpoint(dir_ + "/none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/none")));
  EXPECT_THAT(OpenCheckpoint(dir_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
  WriteText(dir_ + "/notes.txt", "hello");
  EXPECT_THAT(OpenCheckpoint(dir_ + "/notes.txt"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("notes.txt"), HasSubstr(".gguf"))));
  WriteText(dir_ + "/model.safetensors", "x");
  EXPECT_THAT(
      OpenCheckpoint(dir_ + "/model.safetensors"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("the folder")));
  WriteText(dir_ + "/model.gguf", "");
  EXPECT_FALSE(OpenCheckpoint(dir_ + "/model.gguf").ok());
  WriteText(dir_ + "/model.bin", "");
  EXPECT_FALSE(OpenCheckpoint(dir_ + "/model.bin").ok());
  ASSERT_EQ(mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  EXPECT_FALSE(OpenCheckpoint(dir_ + "/fifo").ok());
  fs::create_symlink(dir_ + "/loop", dir_ + "/loop");
  EXPECT_FALSE(OpenCheckpoint(dir_ + "/loop").ok());
}

TEST_F(RegistryTest, FolderWithoutWeightsIsAnError) {
  WriteModel();
  fs::remove(dir_ + "/model.safetensors");
  EXPECT_FALSE(OpenCheckpoint(dir_).ok());
}

TEST(RegistrySharedDataTest, OpensEveryVariant) {
  const auto variants = testing::SharedDataPath("variants");
  if (!variants) GTEST_SKIP() << "shared data is not beside the checkout";
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(*variants)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory()) continue;
    EXPECT_THAT(OpenCheckpoint(entry.path().string()), IsOk()) << name;
    ++opened;
  }
  EXPECT_EQ(opened, 21);
}

TEST(RegistrySharedDataTest, OpensEveryQuantizedFolder) {
  const auto quantized = testing::SharedDataPath("quantized");
  if (!quantized) GTEST_SKIP() << "shared data is not beside the checkout";
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(*quantized)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    const absl::StatusOr<Checkpoint> checkpoint =
        OpenCheckpoint(entry.path().string());
    ASSERT_THAT(checkpoint, IsOk());
    ASSERT_NE(checkpoint->quantized, nullptr);
    EXPECT_EQ(checkpoint->quantized->coded_matrices,
              checkpoint->config.family == "llama" ? 42 : 24);
    ++opened;
  }
  EXPECT_EQ(opened, 6);
}

}  // namespace
}  // namespace nibble
