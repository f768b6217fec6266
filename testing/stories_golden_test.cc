// stories260K, a published Llama of 260,000 parameters, in both of its formats:
// it must tell the published story. The golden numbers are those of a double
// precision forward pass.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "models/registry.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::DecoderSession;
using testing::IsOk;

constexpr char kFolder[] = "llama-stories260K/";
constexpr int32_t kBos = 1;

class StoriesGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto model =
        testing::SharedDataPath(absl::StrCat(kFolder, GetParam()));
    const auto golden =
        testing::SharedDataPath(absl::StrCat(kFolder, "golden.json"));
    if (!model || !golden) {
      GTEST_SKIP() << "shared data is not beside the checkout";
    }
    decoder_ = testing::LoadF32Decoder(*model, pool_);
    std::ifstream file(*golden);
    golden_ = json::parse(file);
  }

  DecoderSession NewSession() {
    return DecoderSession(*decoder_, DType::kF32, /*capacity=*/512, pool_);
  }

  ThreadPool pool_{2};
  std::unique_ptr<Decoder> decoder_;
  json golden_;
};

TEST_P(StoriesGoldenTest, GreedyIdsAreThePublishedStory) {
  const auto want = golden_["greedy_ids"].get<std::vector<int32_t>>();
  ASSERT_EQ(want.size(), 257u);
  DecoderSession session = NewSession();
  std::vector<float> logits = session.Append({&kBos, 1}, false);
  EXPECT_EQ(session.Greedy(logits, want.size()), want);
}

TEST_P(StoriesGoldenTest, LogitsAreThoseOfTheDoublePrecisionPass) {
  std::vector<int32_t> tokens = {kBos};
  for (const json& id : golden_["greedy_ids"]) {
    tokens.push_back(id.get<int32_t>());
  }
  const std::vector<float> logits = NewSession().Append(tokens, true);
  int compared = 0;
  for (const auto& [position, entry] : golden_["logits"].items()) {
    const size_t t = std::stoul(position);
    ASSERT_EQ(entry["input_token"].get<int32_t>(), tokens[t]);
    const auto want = entry["logits"].get<std::vector<float>>();
    ASSERT_EQ(want.size(), 512u);
    // The file has five decimals.
    EXPECT_THAT(absl::MakeConstSpan(&logits[t * 512], 512),
                testing::AllNear(want, 1e-4f))
        << position;
    ++compared;
  }
  EXPECT_EQ(compared, 7);
}

TEST_P(StoriesGoldenTest, MeanNllOfTinyStoriesIsThePublishedOne) {
  const json& head = golden_["tinystories_head"];
  const auto tokens = head["ids"].get<std::vector<int32_t>>();
  const size_t scored = head["scored"].get<size_t>();
  ASSERT_GT(tokens.size(), scored);
  const std::vector<float> logits = NewSession().Append(
      absl::MakeConstSpan(tokens).first(scored), /*all_logits=*/true);
  double sum = 0.0;
  for (size_t t = 0; t < scored; ++t) {
    const absl::Span<const float> row(&logits[t * 512], 512);
    sum += LogSumExp(row) - row[static_cast<size_t>(tokens[t + 1])];
  }
  EXPECT_NEAR(sum / static_cast<double>(scored), head["mean_nll"].get<double>(),
              1e-5);
}

INSTANTIATE_TEST_SUITE_P(Formats, StoriesGoldenTest,
                         ::testing::Values("stories260K.bin",
                                           "stories260K.gguf"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           return std::string(info.param).substr(12);
                         });

// The pieces of the vocabulary inside the GGUF file, joined.
TEST(StoriesTextTest, GreedyTextIsThePublishedText) {
  const auto path =
      testing::SharedDataPath(absl::StrCat(kFolder, "stories260K.gguf"));
  const auto golden =
      testing::SharedDataPath(absl::StrCat(kFolder, "golden.json"));
  if (!path || !golden) {
    GTEST_SKIP() << "shared data is not beside the checkout";
  }
  const auto checkpoint = OpenCheckpoint(*path);
  ASSERT_THAT(checkpoint, IsOk());
  ASSERT_NE(checkpoint->gguf, nullptr);
  const auto pieces = checkpoint->gguf->GetStringArray("tokenizer.ggml.tokens");
  ASSERT_THAT(pieces, IsOk());
  ThreadPool pool(2);
  const std::unique_ptr<Decoder> decoder = testing::LoadF32Decoder(*path, pool);
  DecoderSession session(*decoder, DType::kF32, /*capacity=*/512, pool);
  std::vector<float> logits = session.Append({&kBos, 1}, false);
  std::string text;
  for (const int32_t id : session.Greedy(logits, 257)) {
    text += (*pieces)[static_cast<size_t>(id)];
  }
  text = absl::StrReplaceAll(text, {{"\u2581", " "}, {"<0x0A>", "\n"}});
  std::ifstream file(*golden);
  const std::string want = json::parse(file)["greedy_text"];
  EXPECT_EQ(text.substr(text.find_first_not_of(' ')), want);
}

}  // namespace
}  // namespace nibble
