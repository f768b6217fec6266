// GGUF files that another tool quantized, against logits computed from their
// dequantized weights: as floats, as the codes they hold, and through a .nib
// file that keeps the codes.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder.h"
#include "models/decoder_weights.h"
#include "models/registry.h"
#include "nlohmann/json.hpp"
#include "quantization/flow.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::IsOk;

struct GgufCase {
  const char* type;
  // How the matrices of a layer are held, in the order of the text.
  WeightFormat qkv, up;
  bool minimums;
  int integers;  // matrices held as codes, of 6 layers of 4 and the head
};

class QuantizedGgufGoldenTest : public ::testing::TestWithParam<GgufCase> {
 protected:
  void SetUp() override {
    const std::string name =
        absl::StrCat("tolstoy-llama-gguf-", GetParam().type);
    const std::optional<std::string> path = testing::SharedDataPath(
        absl::StrCat("quantized/", name, "/", name, ".gguf"));
    if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
    absl::StatusOr<Checkpoint> opened = OpenCheckpoint(*path);
    ASSERT_THAT(opened, IsOk());
    checkpoint_ = *std::move(opened);
    golden_ = json::parse(std::ifstream(*testing::SharedDataPath(
        absl::StrCat("quantized/", name, "/golden.json"))));
    want_ = golden_["last_logits"].get<std::vector<float>>();
    ASSERT_EQ(want_.size(), 4096u);
  }

  std::unique_ptr<Decoder> Load(const Checkpoint& checkpoint,
                                std::optional<WeightFormat> weights,
                                std::optional<Activations> activations) {
    DecoderOptions options;
    options.weights = weights;
    options.activations = activations;
    auto decoder = Decoder::Load(checkpoint, options, pool_);
    EXPECT_THAT(decoder, IsOk());
    return decoder.ok() ? *std::move(decoder) : nullptr;
  }

  // Logits of the prompt's last token.
  std::vector<float> Logits(const Decoder& decoder) {
    testing::DecoderSession session(decoder, DType::kF32, 64, pool_);
    return session.Append(golden_["prompt_ids"].get<std::vector<int32_t>>(),
                          /*all_logits=*/false);
  }

  int64_t ArgMax(const std::vector<float>& logits) const {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }

  ThreadPool pool_{2};
  Checkpoint checkpoint_;
  json golden_;
  std::vector<float> want_;
};

INSTANTIATE_TEST_SUITE_P(
    Types, QuantizedGgufGoldenTest,
    ::testing::Values(
        GgufCase{"q4_0", WeightFormat::kInt4, WeightFormat::kInt4, false, 24},
        GgufCase{"q4_1", WeightFormat::kInt4, WeightFormat::kInt4, true, 24},
        GgufCase{"q8_0", WeightFormat::kInt8, WeightFormat::kInt8, false, 25},
        GgufCase{"q4_k_m", WeightFormat::kInt4, WeightFormat::kInt4, true, 20}),
    [](const auto& info) { return std::string(info.param.type); });

TEST_P(QuantizedGgufGoldenTest, FloatWeightsGiveTheGoldenLogits) {
  const auto decoder = Load(checkpoint_, WeightFormat::kF32, std::nullopt);
  ASSERT_NE(decoder, nullptr);
  const std::vector<float> logits = Logits(*decoder);
  EXPECT_THAT(logits, testing::AllNear(want_, 2e-4f));
  EXPECT_EQ(ArgMax(logits), golden_["argmax"].get<int64_t>());
}

// Matrices of types without codes (Q6_K) are bf16 in such a decoder; here they
// are f32, so that the codes alone are compared.
TEST_P(QuantizedGgufGoldenTest, CodesGiveTheGoldenLogits) {
  auto weights = LoadWeights(checkpoint_, std::nullopt, nullptr, pool_);
  auto floats = LoadWeights(checkpoint_, WeightFormat::kF32, nullptr, pool_);
  ASSERT_THAT(weights, IsOk());
  ASSERT_THAT(floats, IsOk());
  const PackedLayout& up = weights->layers[1].up.matrix.layout();
  EXPECT_EQ(weights->layers[1].qkv.matrix.format(), GetParam().qkv);
  EXPECT_EQ(up.format, GetParam().up);
  EXPECT_EQ(up.minimums, GetParam().minimums);
  EXPECT_EQ(up.group_size, 32);
  int integers = 0;
  const auto take_floats = [&](LinearWeights& linear, LinearWeights& exact) {
    if (IsInteger(linear.matrix.format())) {
      ++integers;
    } else {
      linear.matrix = std::move(exact.matrix);
    }
  };
  for (size_t i = 0; i < weights->layers.size(); ++i) {
    LayerWeights& layer = weights->layers[i];
    LayerWeights& exact = floats->layers[i];
    take_floats(layer.qkv, exact.qkv);
    take_floats(layer.attention, exact.attention);
    take_floats(layer.up, exact.up);
    take_floats(layer.down, exact.down);
  }
  take_floats(weights->head, floats->head);
  EXPECT_EQ(integers, GetParam().integers);
  DecoderOptions options;
  options.activations = Activations::kF32;
  const auto decoder = Decoder::Create(*std::move(weights), options);
  ASSERT_THAT(decoder, IsOk());
  const std::vector<float> logits = Logits(**decoder);
  EXPECT_THAT(logits, testing::AllNear(want_, 2e-4f));
  EXPECT_EQ(ArgMax(logits), golden_["argmax"].get<int64_t>());
}

TEST_P(QuantizedGgufGoldenTest, AKeptFileGivesTheSameLogitsBitForBit) {
  const std::string path =
      ::testing::TempDir() + "/kept-" + GetParam().type + ".nib";
  QuantizationOptions options;
  options.keep_codes = true;
  const auto report =
      QuantizeCheckpoint(checkpoint_.path, path, options, pool_, nullptr);
  ASSERT_THAT(report, IsOk());
  const absl::StatusOr<Checkpoint> kept = OpenCheckpoint(path);
  ASSERT_THAT(kept, IsOk());
  for (const Activations activations :
       {Activations::kF32, Activations::kInt8}) {
    const auto stored = Load(checkpoint_, std::nullopt, activations);
    const auto mapped = Load(*kept, std::nullopt, activations);
    ASSERT_TRUE(stored != nullptr && mapped != nullptr);
    EXPECT_EQ(Logits(*mapped), Logits(*stored));
  }
}

}  // namespace
}  // namespace nibble
