// SmolLM2-135M-Instruct from its GGUF file (Q4_1, tied Q8_0 embedding) against
// what transformers computes from the same weights. The model is not in the
// repository: the test runs where tools/fetch_model has put it, or where
// NIBBLE_SMOLLM2 names the file, and skips elsewhere.

#include <pwd.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"
#include "testing/decoder_session.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::DecoderSession;

// Of the 48 in the golden file, to keep the test short.
constexpr size_t kSteps = 16;

std::optional<std::string> FindModel() {
  std::error_code error;
  if (const char* named = std::getenv("NIBBLE_SMOLLM2"); named != nullptr) {
    return std::string(named);
  }
  const passwd* user = getpwuid(getuid());
  if (user == nullptr) return std::nullopt;
  const std::string cached =
      std::string(user->pw_dir) + "/.cache/nibble/models/smollm2.gguf";
  if (!std::filesystem::exists(cached, error)) return std::nullopt;
  return cached;
}

TEST(SmolLm2GoldenTest, GreedyIdsAreThoseOfTransformers) {
  const std::optional<std::string> model = FindModel();
  const auto golden = testing::SharedDataPath("smollm2/golden.json");
  if (!model || !golden) {
    GTEST_SKIP() << "needs tools/fetch_model smollm2 and the shared data";
  }
  ThreadPool pool(2);
  const std::unique_ptr<Decoder> decoder =
      testing::LoadF32Decoder(*model, pool);
  std::ifstream file(*golden);
  const json prompts = json::parse(file)["prompts"];
  ASSERT_EQ(prompts.size(), 8u);
  for (const json& prompt : prompts) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    auto want = prompt["greedy_ids"].get<std::vector<int32_t>>();
    ASSERT_GE(want.size(), kSteps);
    want.resize(kSteps);
    // Logits of about 20 that are off by less than 5e-4 each.
    ASSERT_GT(prompt["min_margin"].get<double>(), 1e-3);
    DecoderSession session(*decoder, DType::kF32, /*capacity=*/1024, pool);
    std::vector<float> logits = session.Append(ids, /*all_logits=*/false);
    EXPECT_EQ(session.Greedy(logits, kSteps), want) << prompt["text"];
  }
}

}  // namespace
}  // namespace nibble
