// Every variant of the shared data through the engine, in chunks
// and with its cache, against transformers' float32 logits and greedy ids.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "runtime/text_generator.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::SharedDataPath;

// Float32 rounding of sums in another order; the goldens' own error against
// float64 is up to 5e-5.
constexpr float kTolerance = 2e-4f;

class VariantTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto config =
        SharedDataPath(absl::StrCat("variants/", GetParam(), "/config.json"));
    if (!config) GTEST_SKIP() << "shared data is not beside the checkout";
    const std::string folder = config->substr(0, config->rfind('/'));
    EngineOptions options;
    options.model_path = folder;
    options.weights = WeightFormat::kF32;
    options.prefill_chunk = 32;
    options.threads = 1;
    NIBBLE_ASSERT_OK_AND_ASSIGN(engine_, Engine::Open(options));
    NIBBLE_ASSERT_OK_AND_ASSIGN(
        golden_, OpenSafetensors(folder + "/golden.safetensors"));
  }

  std::vector<int32_t> Ids(int index, const std::string& name) const {
    absl::StatusOr<TensorView> tensor =
        golden_->Find(absl::StrCat("case", index, ".", name));
    EXPECT_THAT(tensor, IsOk());
    const absl::Span<const int64_t> ids = tensor->As<int64_t>();
    return std::vector<int32_t>(ids.begin(), ids.end());
  }

  // Compares the rows of logits whose positions the golden lists.
  void ExpectLogits(int index) {
    const std::vector<int32_t> positions = Ids(index, "positions");
    absl::StatusOr<TensorView> tensor =
        golden_->Find(absl::StrCat("case", index, ".logits"));
    ASSERT_THAT(tensor, IsOk());
    const absl::Span<const float> expected = tensor->As<float>();
    NIBBLE_ASSERT_OK_AND_ASSIGN(auto sequence, engine_->NewSequence());
    const int64_t vocabulary = engine_->vocabulary();
    size_t next = 0;
    ASSERT_THAT(
        engine_->PrefillWithLogits(
            *sequence, Ids(index, "input_ids"), 0,
            [&](int64_t first, MatrixView<const float> logits) {
              for (int64_t i = 0; i < logits.rows; ++i) {
                if (next == positions.size() || positions[next] != first + i) {
                  continue;
                }
                EXPECT_THAT(logits.row_span(i),
                            nibble::testing::AllNear(
                                expected.subspan(next * vocabulary, vocabulary),
                                kTolerance))
                    << "case " << index << ", position " << first + i;
                ++next;
              }
              return absl::OkStatus();
            }),
        IsOk());
    EXPECT_EQ(next, positions.size());
  }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TensorSource> golden_;
};

TEST_P(VariantTest, LogitsAndGreedyIdsEqualTransformers) {
  int cases = 0;
  for (; golden_->Contains(absl::StrCat("case", cases, ".logits")); ++cases) {
    ExpectLogits(cases);
    GenerateOptions options;
    options.max_tokens = 24;
    options.ignore_eos = true;
    NIBBLE_ASSERT_OK_AND_ASSIGN(
        Generation result,
        Generate(*engine_, Ids(cases, "input_ids"), options));
    EXPECT_EQ(result.token_ids, Ids(cases, "greedy_ids")) << "case " << cases;
  }
  EXPECT_GE(cases, 3);
}

INSTANTIATE_TEST_SUITE_P(
    Variants, VariantTest,
    ::testing::Values("falcon-11b", "falcon-40b", "falcon-7b", "falcon-legacy",
                      "falcon-rw", "gptj", "llama-bf16", "llama-bias",
                      "llama-f16-sharded", "llama-gqa-headdim", "llama-mha",
                      "llama-rope-dynamic", "llama-rope-linear",
                      "llama-rope-llama3", "llama-rope-yarn", "llama-tied",
                      "mistral-window", "neox-fullrotary-nobias",
                      "neox-parallel", "neox-sequential", "qwen2"));

}  // namespace
}  // namespace nibble
