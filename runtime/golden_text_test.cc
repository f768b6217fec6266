// Greedy text of real models against what transformers computes in float32
// from the same weights (golden.json of the bundled model; those of the models
// in the shared data).

#include <cstdint>
#include <cstdlib>
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
#include "nlohmann/json.hpp"
#include "runtime/engine.h"
#include "runtime/score.h"
#include "runtime/text_generator.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::nibble::testing::AllNear;
using ::nibble::testing::IsOk;
using ::nibble::testing::RunfilePath;
using ::nibble::testing::SharedDataPath;
using Json = ::nlohmann::json;

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file, nullptr, /*allow_exceptions=*/false);
}

EngineOptions Float32(const std::string& path) {
  EngineOptions options;
  options.model_path = path;
  options.weights = WeightFormat::kF32;
  options.kv_cache = DType::kF32;
  return options;
}

Generation Greedy(Engine& engine, const std::vector<int32_t>& prompt,
                  int64_t tokens) {
  GenerateOptions options;
  options.max_tokens = tokens;
  options.ignore_eos = true;
  absl::StatusOr<Generation> result = Generate(engine, prompt, options);
  EXPECT_THAT(result, IsOk());
  return result.value_or(Generation());
}

std::string BundledModel() {
  return fs::path(RunfilePath("apps/bundled_model/config.json"))
      .parent_path()
      .string();
}

// The smallest margin between best and second-best logit is 0.0018, a hundred
// times the error of float32 arithmetic here, so every id must be equal.
void ExpectGoldenPrompts(const EngineOptions& options) {
  const Json golden = ReadJson(RunfilePath("apps/bundled_model/golden.json"));
  ASSERT_TRUE(golden.contains("prompts"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(options));
  ASSERT_NE(engine->tokenizer(), nullptr);
  ASSERT_GE(golden["prompts"].size(), 6u);
  for (const Json& prompt : golden["prompts"]) {
    const std::string text = prompt["text"];
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(engine->tokenizer()->Encode(text), ids);
    const auto greedy = prompt["greedy_ids"].get<std::vector<int32_t>>();
    const Generation result = Greedy(*engine, ids, greedy.size());
    EXPECT_EQ(result.token_ids, greedy) << text;
    EXPECT_EQ(text + result.text, prompt["text_with_prompt"]);
  }
}

TEST(BundledModelTest, GreedyIdsAndTextEqualTransformersInFloat32) {
  ExpectGoldenPrompts(Float32(BundledModel()));
}

// The weights are stored in bf16, so holding them so loses nothing.
TEST(BundledModelTest, GreedyIdsAndTextEqualTransformersWithBf16Weights) {
  EngineOptions options = Float32(BundledModel());
  options.weights = WeightFormat::kBF16;
  ExpectGoldenPrompts(options);
}

TEST(BundledModelTest, LossOnHeldOutTextEqualsTransformers) {
  const auto path = SharedDataPath("text/war-and-peace-valid.txt");
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  std::ifstream file(*path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  const Json golden = ReadJson(RunfilePath("apps/bundled_model/golden.json"));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine,
                              Engine::Open(Float32(BundledModel())));
  Tokenizer::EncodeOptions plain;
  plain.add_special_tokens = false;
  const std::vector<int32_t> ids = engine->tokenizer()->Encode(text, plain);
  const Json& expected = golden["validation"];
  ASSERT_EQ(static_cast<int64_t>(ids.size()), expected["ids"]);
  const int64_t window = expected["window"];
  // The first windows; all 90 take a minute.
  for (int64_t i = 0; i < 6; ++i) {
    std::vector<int32_t> tokens = {1};  // <s>
    tokens.insert(tokens.end(), ids.begin() + i * window,
                  ids.begin() + (i + 1) * window);
    NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                                ScoreTokens(*engine, tokens));
    const double nll = expected["window_sum_nll"][i];
    EXPECT_NEAR(-scores.sum_logprob, nll, 1e-5 * nll) << "window " << i;
  }
}

// One trained model of each other family, from a folder of the shared data.
class TrainedFamilyTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto path = SharedDataPath(
        absl::StrCat("models/tolstoy-", GetParam(), "/golden.json"));
    if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
    golden_ = ReadJson(*path);
    NIBBLE_ASSERT_OK_AND_ASSIGN(
        engine_, Engine::Open(Float32(path->substr(0, path->rfind('/')))));
    ASSERT_NE(engine_->tokenizer(), nullptr);
  }

  Json golden_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(TrainedFamilyTest, GreedyIdsAndTextEqualTransformersInFloat32) {
  ASSERT_GE(golden_["prompts"].size(), 6u);
  for (const Json& prompt : golden_["prompts"]) {
    const std::string text = prompt["text"];
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(engine_->tokenizer()->Encode(text), ids);
    // Five times the error that float32 is allowed elsewhere.
    ASSERT_GT(prompt["min_margin"].get<double>(), 1e-3);
    const auto greedy = prompt["greedy_ids"].get<std::vector<int32_t>>();
    const Generation result = Greedy(*engine_, ids, greedy.size());
    EXPECT_EQ(result.token_ids, greedy) << text;
    EXPECT_EQ(text + result.text, prompt["text_with_prompt"]);
  }
}

TEST_P(TrainedFamilyTest, LossOnHeldOutTextEqualsTransformers) {
  std::ifstream file(*SharedDataPath("text/war-and-peace-valid.txt"),
                     std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  Tokenizer::EncodeOptions plain;
  plain.add_special_tokens = false;
  const std::vector<int32_t> ids = engine_->tokenizer()->Encode(text, plain);
  const Json& expected = golden_["validation"];
  ASSERT_EQ(static_cast<int64_t>(ids.size()), expected["ids"]);
  const int64_t window = expected["window"];
  // The first windows; all 101 are the score program's work.
  for (int64_t i = 0; i < 6; ++i) {
    const absl::Span<const int32_t> tokens(&ids[i * window], window);
    NIBBLE_ASSERT_OK_AND_ASSIGN(TokenScores scores,
                                ScoreTokens(*engine_, tokens));
    const double nll = expected["window_sum_nll"][i];
    EXPECT_NEAR(-scores.sum_logprob, nll, 1e-5 * nll) << "window " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TrainedFamilyTest,
                         ::testing::Values("gptj", "neox", "falcon"));

// Both files of a real Llama, as published: GGUF and llama2.c.
TEST(Stories260KTest, GreedyIdsEqualThePublishedTextFromBothFormats) {
  const auto golden_path = SharedDataPath("llama-stories260K/golden.json");
  if (!golden_path) GTEST_SKIP() << "shared data is not beside the checkout";
  const Json golden = ReadJson(*golden_path);
  const auto greedy = golden["greedy_ids"].get<std::vector<int32_t>>();
  ASSERT_EQ(greedy.size(), 257u);
  for (const char* name : {"stories260K.gguf", "stories260K.bin"}) {
    const auto path = SharedDataPath(absl::StrCat("llama-stories260K/", name));
    ASSERT_TRUE(path.has_value());
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Float32(*path)));
    const Generation result = Greedy(*engine, {1}, 257);
    EXPECT_EQ(result.token_ids, greedy) << name;
    ASSERT_NE(engine->tokenizer(), nullptr) << name;
    EXPECT_EQ(result.text, golden["greedy_text"]) << name;
  }
}

// Four-bit and eight-bit GGUF files, dequantised: every logit.
class QuantizedGgufTest : public ::testing::TestWithParam<const char*> {};

TEST_P(QuantizedGgufTest, LogitsEqualTransformersOnTheDequantisedWeights) {
  const std::string folder =
      absl::StrCat("quantized/tolstoy-llama-gguf-", GetParam());
  const auto model = SharedDataPath(
      absl::StrCat(folder, "/tolstoy-llama-gguf-", GetParam(), ".gguf"));
  const auto golden_path = SharedDataPath(folder + "/golden.json");
  if (!model || !golden_path) {
    GTEST_SKIP() << "shared data is not beside the checkout";
  }
  const Json golden = ReadJson(*golden_path);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Float32(*model)));
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine->NewSequence());
  std::vector<float> logits(engine->vocabulary());
  ASSERT_THAT(engine->Prefill(*sequence,
                              golden["prompt_ids"].get<std::vector<int32_t>>(),
                              absl::MakeSpan(logits)),
              IsOk());
  const auto expected = golden["last_logits"].get<std::vector<float>>();
  // Float32 rounding of sums in another order; logits are below 10.
  EXPECT_THAT(logits, AllNear(expected, 2e-4f));
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizedGgufTest,
                         ::testing::Values("q4_0", "q4_1", "q4_k_m", "q8_0"));

// tools/fetch_model puts the file there; a test never fetches it.
std::optional<std::string> SmolLm2Path() {
  fs::path cache;
  if (const char* folder = std::getenv("XDG_CACHE_HOME")) {
    cache = folder;
  } else if (const char* home = std::getenv("HOME")) {
    cache = fs::path(home) / ".cache";
  }
  const fs::path path = cache / "nibble/models/smollm2.gguf";
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  return path.string();
}

TEST(SmolLm2Test, GreedyIdsEqualTransformersInFloat32) {
  const auto model = SmolLm2Path();
  const auto golden_path = SharedDataPath("smollm2/golden.json");
  if (!model || !golden_path) GTEST_SKIP() << "the model is not in the cache";
  const Json golden = ReadJson(*golden_path);
  NIBBLE_ASSERT_OK_AND_ASSIGN(auto engine, Engine::Open(Float32(*model)));
  ASSERT_EQ(golden["prompts"].size(), 8u);
  for (const Json& prompt : golden["prompts"]) {
    const std::string text = prompt["text"];
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(engine->tokenizer()->Encode(text), ids);
    const auto greedy = prompt["greedy_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(Greedy(*engine, ids, greedy.size()).token_ids, greedy) << text;
  }
}

}  // namespace
}  // namespace nibble
