// Every quantized Hugging Face folder of the shared data, in each way that the
// engine holds it, against logits that were computed in float32 from the
// dequantized weights. (testing/quantized_gguf_golden_test.cc: GGUF files.)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "nlohmann/json.hpp"
#include "runtime/engine.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/quantized_layers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::AllNear;
using testing::IsOk;
using testing::SharedDataPath;

// As in variant_golden_test: float32 sums in another order. Decoding a code to
// a float rounds once, as the goldens' own dequantization did.
constexpr float kTolerance = 2e-4f;

struct Folder {
  const char* name;
  // The file's head is f32, which is held as bf16 beside codes: the expected
  // logits are then those of the dequantized weights and a rounded head.
  bool wide_head = false;
};

class QuantizedGoldenTest : public ::testing::TestWithParam<Folder> {
 protected:
  void SetUp() override {
    const std::optional<std::string> path = SharedDataPath(
        absl::StrCat("quantized/", GetParam().name, "/golden.json"));
    if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
    folder_ = path->substr(0, path->rfind('/'));
    const json golden = json::parse(std::ifstream(*path));
    prompt_ = golden["prompt_ids"].get<std::vector<int32_t>>();
    logits_ = golden["last_logits"].get<std::vector<float>>();
    argmax_ = golden["argmax"].get<int64_t>();
    ASSERT_EQ(prompt_.size(), 16u);
  }

  // The logits after the prompt.
  std::vector<float> Logits(EngineOptions options) {
    options.model_path = folder_;
    options.threads = 1;
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
    EXPECT_THAT(engine, IsOk());
    if (!engine.ok()) return {};
    auto sequence = (*engine)->NewSequence();
    EXPECT_THAT(sequence, IsOk());
    std::vector<float> logits(static_cast<size_t>((*engine)->vocabulary()));
    EXPECT_THAT((*engine)->Prefill(**sequence, prompt_, absl::MakeSpan(logits)),
                IsOk());
    return logits;
  }

  // From now on a copy of the folder whose head is rounded to bf16.
  void RoundHead() {
    const std::string copy =
        absl::StrCat(::testing::TempDir(), "/rounded_", GetParam().name);
    std::filesystem::remove_all(copy);
    std::filesystem::create_directories(copy);
    for (const char* file : {"config.json", "tokenizer.json"}) {
      std::filesystem::copy(absl::StrCat(folder_, "/", file), copy);
    }
    testing::StoredTensors tensors;
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto stored, OpenSafetensorsFolder(folder_));
    tensors.Add(*stored);
    const TensorView head = *stored->Find("lm_head.weight");
    std::vector<BF16> rounded;
    for (const float weight : head.As<float>()) {
      rounded.push_back(ToBF16(weight));
    }
    tensors.Set("lm_head.weight", head.shape, rounded);
    ASSERT_THAT(WriteSafetensors(copy + "/model.safetensors", tensors.list()),
                IsOk());
    folder_ = copy;
  }

  int64_t ArgMax(const std::vector<float>& logits) const {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }

  std::string folder_;
  std::vector<int32_t> prompt_;
  std::vector<float> logits_;
  int64_t argmax_ = 0;
};

TEST_P(QuantizedGoldenTest, DequantizedWeightsGiveTheLogits) {
  EngineOptions options;
  options.weights = WeightFormat::kF32;
  const std::vector<float> logits = Logits(options);
  EXPECT_THAT(logits, AllNear(logits_, kTolerance));
  EXPECT_EQ(ArgMax(logits), argmax_);
}

TEST_P(QuantizedGoldenTest, CodesAsTheyAreGiveTheLogits) {
  EngineOptions options;
  std::vector<float> expected = logits_;
  if (GetParam().wide_head) {
    ASSERT_NO_FATAL_FAILURE(RoundHead());
    options.weights = WeightFormat::kF32;
    expected = Logits(options);
    options.weights.reset();
  }
  options.activations = Activations::kF32;
  options.kv_cache = DType::kF32;
  const std::vector<float> logits = Logits(options);
  EXPECT_THAT(logits, AllNear(expected, kTolerance));
  EXPECT_EQ(ArgMax(logits), argmax_);
}

TEST_P(QuantizedGoldenTest, TheDefaultsChooseTheSameToken) {
  const std::vector<float> logits = Logits({});
  EXPECT_EQ(ArgMax(logits), argmax_);
}

INSTANTIATE_TEST_SUITE_P(
    Folders, QuantizedGoldenTest,
    ::testing::Values(Folder{"tolstoy-gptj-autogptq-g64", true},
                      Folder{"tolstoy-gptj-autoround-g32", true},
                      Folder{"tolstoy-gptj-gptq-g32-act"},
                      Folder{"tolstoy-llama-awq-g32"},
                      Folder{"tolstoy-llama-ct-g32"},
                      Folder{"tolstoy-llama-gptq-g32"}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace nibble
