// A quantized folder, generated here, run by the engine.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "runtime/engine.h"
#include "tensor/bf16.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "tensor/shape.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/quantized_layers.h"

namespace nibble {
namespace {

using testing::AllNear;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::StoredTensors;

constexpr char kSettings[] =
    R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true,
        "format": "gptq_v2"})";
constexpr char kUp[] = "model.layers.1.mlp.up_proj";

class QuantizedEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.model_path = absl::StrCat(
        ::testing::TempDir(), "/quantized_engine_",
        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(options_.model_path);
    options_.threads = 1;
  }

  std::vector<float> Logits() {
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options_);
    EXPECT_THAT(engine, IsOk());
    if (!engine.ok()) return {};
    auto sequence = (*engine)->NewSequence();
    EXPECT_THAT(sequence, IsOk());
    std::vector<float> logits(static_cast<size_t>((*engine)->vocabulary()));
    EXPECT_THAT((*engine)->Prefill(**sequence, std::vector<int32_t>{5, 7, 11},
                                   absl::MakeSpan(logits)),
                IsOk());
    return logits;
  }

  EngineOptions options_;
};

TEST_F(QuantizedEngineTest, CodesGiveTheLogitsOfTheirDequantizedWeights) {
  ASSERT_THAT(testing::WriteQuantizedLlama(options_.model_path, kSettings),
              IsOk());
  options_.weights = WeightFormat::kF32;
  const std::vector<float> dense = Logits();
  options_.weights.reset();
  options_.activations = Activations::kF32;
  options_.kv_cache = DType::kF32;
  // Codes times scales, and bf16, are exact in f32: the order of the sums is
  // the only difference.
  const std::vector<float> codes = Logits();
  float largest = 0;
  for (const float value : dense) largest = std::max(largest, std::abs(value));
  EXPECT_THAT(codes, AllNear(dense, largest * 1e-4f));
}

TEST_F(QuantizedEngineTest, WarnsOfWhatIsOdd) {
  std::vector<std::string> warnings;
  options_.warn = [&](const std::string& text) { warnings.push_back(text); };
  ASSERT_THAT(testing::WriteQuantizedLlama(options_.model_path, kSettings),
              IsOk());
  EXPECT_EQ(Logits().size(), 97u);
  EXPECT_THAT(warnings, ElementsAre());
  ASSERT_THAT(testing::WriteQuantizedLlama(
                  options_.model_path,
                  R"({"quant_method": "gptq", "bits": 4, "group_size": 32})"),
              IsOk());
  EXPECT_EQ(Logits().size(), 97u);
  EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr("labelled gptq"),
                                          HasSubstr("gptq_v2"))));
}

TEST_F(QuantizedEngineTest, RejectsScalesThatAreNotFinite) {
  for (const float wrong : {std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
    ASSERT_THAT(testing::WriteQuantizedLlama(
                    options_.model_path, kSettings,
                    [&](StoredTensors& tensors) {
                      const std::string name = absl::StrCat(kUp, ".scales");
                      const TensorView view = *tensors.Find(name);
                      std::vector<F16> scales(view.As<F16>().begin(),
                                              view.As<F16>().end());
                      scales[3] = ToF16(wrong);
                      const Shape shape = view.shape;
                      tensors.Set(name, shape, scales);
                    }),
                IsOk());
    for (const bool dense : {false, true}) {
      options_.weights.reset();
      if (dense) options_.weights = WeightFormat::kF32;
      EXPECT_THAT(Engine::Open(options_),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           AllOf(HasSubstr("model.safetensors"), HasSubstr(kUp),
                                 HasSubstr("finite"))));
    }
  }
}

TEST_F(QuantizedEngineTest, IgnoresBiasesOfZerosThatTheModelDoesNotHave) {
  for (const float value : {0.0f, 1.0f}) {
    ASSERT_THAT(testing::WriteQuantizedLlama(
                    options_.model_path, kSettings,
                    [&](StoredTensors& tensors) {
                      tensors.Set(absl::StrCat(kUp, ".bias"), {96},
                                  std::vector<float>(96, value));
                    }),
                IsOk());
    const auto engine = Engine::Open(options_);
    if (value == 0) {
      EXPECT_THAT(engine, IsOk());
    } else {
      EXPECT_THAT(engine, StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("up_proj.bias")));
    }
  }
}

}  // namespace
}  // namespace nibble
