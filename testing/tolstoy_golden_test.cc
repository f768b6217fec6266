// The bundled model against what transformers computes from it: greedy ids of
// its prompts, and the loss on text it was not trained on.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/softmax.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"
#include "tokenizer/tokenizer.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::DecoderSession;

constexpr char kModel[] = "apps/bundled_model";
constexpr size_t kVocabulary = 4096;

class TolstoyGoldenTest : public ::testing::Test {
 protected:
  TolstoyGoldenTest()
      : decoder_(testing::LoadF32Decoder(testing::RunfilePath(kModel), pool_)) {
    std::ifstream file(
        testing::RunfilePath(std::string(kModel) + "/golden.json"));
    golden_ = json::parse(file);
  }

  DecoderSession NewSession() {
    return DecoderSession(*decoder_, DType::kF32, /*capacity=*/520, pool_);
  }

  ThreadPool pool_{2};
  std::unique_ptr<Decoder> decoder_;
  json golden_;
};

TEST_F(TolstoyGoldenTest, GreedyIdsAreThoseOfTransformers) {
  ASSERT_GE(golden_["prompts"].size(), 6u);
  for (const json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    const auto want = prompt["greedy_ids"].get<std::vector<int32_t>>();
    // Two logits that are 1e-3 apart cannot change places when each is off by
    // less than 2e-4.
    ASSERT_GT(prompt["min_margin"].get<double>(), 1e-3);
    DecoderSession session = NewSession();
    std::vector<float> logits = session.Append(ids, /*all_logits=*/false);
    EXPECT_EQ(session.Greedy(logits, want.size()), want) << prompt["text"];
  }
}

TEST_F(TolstoyGoldenTest, LossOfHeldOutTextIsThatOfTransformers) {
  const auto path = testing::SharedDataPath("text/war-and-peace-valid.txt");
  if (!path) GTEST_SKIP() << "shared data is not beside the checkout";
  const auto tokenizer = LoadTokenizerFolder(testing::RunfilePath(kModel));
  ASSERT_THAT(tokenizer, testing::IsOk());
  std::ifstream file(*path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  Tokenizer::EncodeOptions plain;
  plain.add_special_tokens = false;
  const std::vector<int32_t> ids = (*tokenizer)->Encode(text, plain);
  const json& validation = golden_["validation"];
  ASSERT_EQ(ids.size(), validation["ids"].get<size_t>());

  // Six of the ninety windows; the score program does them all.
  const size_t window = validation["window"].get<size_t>();
  for (size_t w = 0; w < 6; ++w) {
    // The text's ids behind <s>.
    std::vector<int32_t> tokens(window + 1, 1);
    std::copy_n(ids.begin() + w * window, window, tokens.begin() + 1);
    const std::vector<float> logits = NewSession().Append(
        absl::MakeConstSpan(tokens).first(window), /*all_logits=*/true);
    double sum = 0.0;
    for (size_t t = 0; t < window; ++t) {
      const absl::Span<const float> row(&logits[t * kVocabulary], kVocabulary);
      sum += LogSumExp(row) - row[static_cast<size_t>(tokens[t + 1])];
    }
    const double want = validation["window_sum_nll"][w].get<double>();
    EXPECT_NEAR(sum, want, 1e-5 * want) << "window " << w;
  }
}

}  // namespace
}  // namespace nibble
