// Tasks on real models against what transformers computes from them: see
// README.md of the shared data's models and smollm2. Skips what is not there.

#include <pwd.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/engine.h"
#include "runtime/evaluation/baseline.h"
#include "runtime/evaluation/evaluation.h"
#include "runtime/evaluation/evaluation_set.h"
#include "runtime/evaluation/metrics.h"
#include "runtime/evaluation/task.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::SharedDataPath;
using nlohmann::json;

json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

// In f32 throughout, as the goldens were computed.
std::unique_ptr<Engine> Open(const std::string& model) {
  EngineOptions options;
  options.model_path = model;
  options.weights = WeightFormat::kF32;
  options.kv_cache = DType::kF32;
  options.threads = 2;
  auto engine = Engine::Open(options);
  EXPECT_THAT(engine, IsOk());
  return *std::move(engine);
}

TaskResult RunTask(Engine& engine, const TaskSpec& spec,
                   EvaluationSetOptions options) {
  options.context = engine.context();
  const auto set = LoadEvaluationSet({spec}, *engine.tokenizer(), options);
  EXPECT_THAT(set, IsOk());
  const auto results = Evaluate(engine, *set, {});
  EXPECT_THAT(results, IsOk());
  return results->front();
}

struct Tolstoy {
  std::string name;
  int64_t windows;  // of them all, to keep the test short; 0: all
};
void PrintTo(const Tolstoy& model, std::ostream* out) { *out << model.name; }

class TolstoyTest : public ::testing::TestWithParam<Tolstoy> {};

TEST_P(TolstoyTest, LossOfHeldOutTextIsThatOfTransformers) {
  const auto model = SharedDataPath("models/tolstoy-" + GetParam().name);
  const auto text = SharedDataPath("text/war-and-peace-valid.txt");
  if (!model || !text) {
    GTEST_SKIP() << "shared data is not beside the checkout";
  }
  const json golden = ReadJson(*model + "/golden.json")["validation"];
  EvaluationSetOptions options;
  options.window = golden["window"].get<int64_t>();
  options.limit = GetParam().windows;
  const auto engine = Open(*model);
  const TaskResult result =
      RunTask(*engine, {TaskKind::kPerplexity, *text, "perplexity"}, options);
  const json& windows = golden["window_sum_nll"];
  ASSERT_LE(result.scores.size(), windows.size());
  for (size_t i = 0; i < result.scores.size(); ++i) {
    const double expected = windows[i].get<double>();
    EXPECT_NEAR(-result.scores[i].sum_logprob, expected, 1e-5 * expected) << i;
  }
  if (options.limit > 0) return;
  EXPECT_EQ(result.scores.size(), windows.size());
  EXPECT_EQ(result.metrics.tokens, golden["scored"].get<int64_t>());
  EXPECT_NEAR(result.metrics.mean_nll, golden["mean_nll"].get<double>(), 2e-6);
  // Two tokens may change places where two logits are nearly equal.
  EXPECT_NEAR(result.metrics.accuracy, golden["top1_accuracy"].get<double>(),
              2.1 / golden["scored"].get<double>());
}

INSTANTIATE_TEST_SUITE_P(Models, TolstoyTest,
                         ::testing::Values(Tolstoy{"llama", 20},
                                           Tolstoy{"gptj", 0},
                                           Tolstoy{"neox", 0},
                                           Tolstoy{"falcon", 0}));

// What is kept in f16 stands for the distributions themselves.
TEST(BaselineTest, KeepsTheDivergenceOfATrainedModel) {
  const auto model = SharedDataPath("models/tolstoy-gptj");
  const auto text = SharedDataPath("text/war-and-peace-valid.txt");
  if (!model || !text) {
    GTEST_SKIP() << "shared data is not beside the checkout";
  }
  const auto reference = Open(*model);
  EngineOptions rounded;
  rounded.model_path = *model;
  rounded.kv_cache = DType::kI8;
  NIBBLE_ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Open(rounded));
  EvaluationSetOptions options;
  options.context = engine->context();
  options.limit = 8;
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const EvaluationSet set,
      LoadEvaluationSet({{TaskKind::kPerplexity, *text, "perplexity"}},
                        *engine->tokenizer(), options));
  NIBBLE_ASSERT_OK_AND_ASSIGN(const Baseline baseline,
                              Baseline::Measure(*reference, set, {}));
  const auto divergence = [](const auto& results) {
    EXPECT_THAT(results, IsOk());
    return results->front().comparison->kl_divergence;
  };
  const double live = divergence(EvaluateAgainst(*engine, *reference, set, {}));
  const double kept = divergence(EvaluateAgainst(*engine, baseline, set, {}));
  const double self =
      divergence(EvaluateAgainst(*reference, baseline, set, {}));
  RecordProperty("live", absl::StrCat(live));
  RecordProperty("kept", absl::StrCat(kept));
  RecordProperty("self", absl::StrCat(self));
  EXPECT_GT(live, 1e-6);
  // A logit d below the largest is off by at most d 2^-12, so that ln p is off
  // by some e = 10 * 2^-13: e^2 / 2 and, by chance of sign, parts of the rest.
  EXPECT_LT(self, 1e-6);
  EXPECT_NEAR(kept, live, 1e-6);
}

// Where tools/fetch_model has put it, or where NIBBLE_SMOLLM2 says.
std::optional<std::string> FindSmolLm2() {
  if (const char* named = std::getenv("NIBBLE_SMOLLM2"); named != nullptr) {
    return std::string(named);
  }
  const passwd* user = getpwuid(getuid());
  if (user == nullptr) return std::nullopt;
  const std::string path =
      std::string(user->pw_dir) + "/.cache/nibble/models/smollm2.gguf";
  return std::ifstream(path).good() ? std::optional(path) : std::nullopt;
}

TEST(SmolLm2Test, LambadaAndWikiTextAreThoseOfTransformers) {
  const auto model = FindSmolLm2();
  const auto golden_path = SharedDataPath("smollm2/golden.json");
  const auto lambada_path = SharedDataPath("eval/lambada_test.jsonl");
  const auto wiki_path = SharedDataPath("eval/wiki.test.raw");
  if (!model || !golden_path || !lambada_path || !wiki_path) {
    GTEST_SKIP() << "needs tools/fetch_model smollm2 and the shared data";
  }
  const json golden = ReadJson(*golden_path);
  const auto engine = Open(*model);
  EvaluationSetOptions options;
  options.limit = 12;  // of 300, to keep the test short
  const TaskResult lambada =
      RunTask(*engine, {TaskKind::kLambada, *lambada_path, "lambada"}, options);
  for (size_t i = 0; i < lambada.scores.size(); ++i) {
    const SequenceScore& score = lambada.scores[i];
    EXPECT_NEAR(score.sum_logprob,
                golden["lambada"]["item_logprob"][i].get<double>(), 1e-3);
    EXPECT_EQ(score.greedy_tokens == score.tokens,
              golden["lambada"]["item_correct"][i].get<int>() != 0);
  }
  options.limit = 1;  // of 20
  options.window = 1024;
  const TaskResult wiki = RunTask(
      *engine, {TaskKind::kPerplexity, *wiki_path, "perplexity"}, options);
  const double expected =
      golden["wikitext2"]["window_sum_nll"][0].get<double>();
  EXPECT_NEAR(-wiki.scores[0].sum_logprob, expected, 1e-5 * expected);
  EXPECT_EQ(wiki.metrics.tokens, 1023);
}

}  // namespace
}  // namespace nibble
