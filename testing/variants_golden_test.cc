// Tiny random models against the logits and greedy ids that transformers
// computes from them. Eight of the models live in testing/data; the others, and
// the description of the files, in the shared data.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/rope.h"
#include "kernels/elementwise/topk.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "tensor/dtype.h"
#include "tensor/io/safetensors.h"
#include "tensor/io/tensor_source.h"
#include "tensor/view.h"
#include "testing/decoder_session.h"
#include "testing/matchers.h"
#include "testing/shared_data.h"

namespace nibble {
namespace {

using testing::DecoderSession;
using testing::IsOk;

// What a float32 engine may differ by: twice the 1e-4 that the goldens' own
// float32 arithmetic is good for.
constexpr float kTolerance = 2e-4f;

struct Variant {
  std::string name;
  bool in_repository;
};

// One input of a golden file.
struct Case {
  std::vector<int32_t> input;
  std::vector<int64_t> positions;
  std::vector<float> logits;  // [positions, vocabulary]
  std::vector<int32_t> greedy_ids;
  std::vector<float> greedy_margins;
  std::vector<float> greedy_last_logits;      // [vocabulary]
  std::vector<int32_t> greedy_ids_recompute;  // dynamic rope only
};

std::vector<int64_t> Ints(const TensorSource& golden, const std::string& name) {
  const absl::StatusOr<TensorView> view = golden.Find(name);
  EXPECT_THAT(view, IsOk());
  if (!view.ok()) return {};
  const absl::Span<const int64_t> values = view->As<int64_t>();
  return {values.begin(), values.end()};
}

std::vector<int32_t> Ids(const TensorSource& golden, const std::string& name) {
  const std::vector<int64_t> wide = Ints(golden, name);
  return {wide.begin(), wide.end()};
}

std::vector<float> Floats(const TensorSource& golden, const std::string& name) {
  const absl::StatusOr<TensorView> view = golden.Find(name);
  EXPECT_THAT(view, IsOk());
  if (!view.ok()) return {};
  const absl::Span<const float> values = view->As<float>();
  return {values.begin(), values.end()};
}

std::vector<Case> ReadCases(const std::string& folder) {
  std::vector<Case> cases;
  const auto golden = OpenSafetensors(folder + "/golden.safetensors");
  EXPECT_THAT(golden, IsOk());
  if (!golden.ok()) return cases;
  const TensorSource& source = **golden;
  for (int i = 0; source.Contains(absl::StrCat("case", i, ".input_ids")); ++i) {
    const std::string name = absl::StrCat("case", i, ".");
    Case c;
    c.input = Ids(source, name + "input_ids");
    c.positions = Ints(source, name + "positions");
    c.logits = Floats(source, name + "logits");
    c.greedy_ids = Ids(source, name + "greedy_ids");
    c.greedy_margins = Floats(source, name + "greedy_margins");
    c.greedy_last_logits = Floats(source, name + "greedy_last_logits");
    if (source.Contains(name + "greedy_ids_recompute")) {
      c.greedy_ids_recompute = Ids(source, name + "greedy_ids_recompute");
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

float MaxDifference(absl::Span<const float> got, absl::Span<const float> want) {
  EXPECT_EQ(got.size(), want.size());
  float worst = 0.0f;
  for (size_t i = 0; i < got.size(); ++i) {
    const float difference = std::abs(got[i] - want[i]);
    if (!(difference <= worst)) worst = difference;  // NaN too
  }
  return worst;
}

class VariantsGoldenTest : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    const std::string& name = GetParam().name;
    std::optional<std::string> folder;
    if (GetParam().in_repository) {
      folder = testing::RunfilePath(absl::StrCat("testing/data/", name));
    } else {
      folder = testing::SharedDataPath(absl::StrCat("variants/", name));
    }
    if (!folder) GTEST_SKIP() << "shared data is not beside the checkout";
    decoder_ = testing::LoadF32Decoder(*folder, pool_);
    cases_ = ReadCases(*folder);
    ASSERT_GE(cases_.size(), 3u);
  }

  int64_t vocabulary() const { return decoder_->config().vocabulary; }

  DecoderSession NewSession(ThreadPool& pool, DType kv = DType::kF32) {
    return DecoderSession(*decoder_, kv, /*capacity=*/192, pool);
  }

  ThreadPool pool_{2};
  std::unique_ptr<Decoder> decoder_;
  std::vector<Case> cases_;
};

TEST_P(VariantsGoldenTest, LogitsOfOnePassAreThoseOfTransformers) {
  float worst = 0.0f;
  for (const Case& c : cases_) {
    const std::vector<float> got =
        NewSession(pool_).Append(c.input, /*all_logits=*/true);
    const size_t row = static_cast<size_t>(vocabulary());
    for (size_t i = 0; i < c.positions.size(); ++i) {
      const absl::Span<const float> logits(
          &got[static_cast<size_t>(c.positions[i]) * row], row);
      const float difference = MaxDifference(logits, {&c.logits[i * row], row});
      EXPECT_LE(difference, kTolerance)
          << c.input.size() << " tokens, position " << c.positions[i];
      worst = std::max(worst, difference);
    }
  }
  RecordProperty("largest_difference", absl::StrCat(worst));
}

TEST_P(VariantsGoldenTest, GreedyIdsWithACacheAreThoseOfTransformers) {
  for (const Case& c : cases_) {
    // A margin of more than twice the tolerance leaves no choice.
    for (const float margin : c.greedy_margins) {
      ASSERT_GT(margin, 2 * kTolerance);
    }
    DecoderSession session = NewSession(pool_);
    std::vector<float> logits = session.Append(c.input, /*all_logits=*/false);
    EXPECT_EQ(session.Greedy(logits, c.greedy_ids.size()), c.greedy_ids)
        << c.input.size() << " tokens";
    EXPECT_LE(MaxDifference(logits, c.greedy_last_logits), kTolerance)
        << c.input.size() << " tokens";
  }
}

TEST_P(VariantsGoldenTest, DynamicRopeRecomputedFromScratchDiffersAsInGolden) {
  for (const Case& c : cases_) {
    std::vector<int32_t> tokens = c.input;
    for (const int32_t want : c.greedy_ids_recompute) {
      const std::vector<float> logits =
          NewSession(pool_).Append(tokens, /*all_logits=*/false);
      ASSERT_EQ(ArgMax(logits), want) << tokens.size() << " tokens";
      tokens.push_back(want);
    }
  }
}

TEST_P(VariantsGoldenTest, BitsDoNotDependOnChunksOrThreads) {
  ThreadPool one(1);
  for (const Case& c : cases_) {
    const bool past_dynamic =
        decoder_->config().rope.scaling.type == RopeScaling::kDynamic &&
        static_cast<int64_t>(c.input.size()) > decoder_->config().max_positions;
    if (past_dynamic) continue;  // There the contract is the cached golden.
    for (const DType kv : {DType::kF32, DType::kBF16}) {
      const std::vector<float> whole =
          NewSession(one, kv).Append(c.input, /*all_logits=*/true);
      for (const size_t chunk : {1, 7, 64}) {
        EXPECT_EQ(NewSession(one, kv).AppendInChunks(c.input, chunk), whole);
        EXPECT_EQ(NewSession(pool_, kv).AppendInChunks(c.input, chunk), whole);
      }
    }
  }
}

const Variant kVariants[] = {
    {"falcon-11b", false},
    {"falcon-40b", true},
    {"falcon-7b", false},
    {"falcon-legacy", false},
    {"falcon-rw", true},
    {"gptj", true},
    {"llama-bf16", false},
    {"llama-bias", false},
    {"llama-f16-sharded", false},
    {"llama-gqa-headdim", true},
    {"llama-mha", false},
    {"llama-rope-dynamic", true},
    {"llama-rope-linear", false},
    {"llama-rope-llama3", false},
    {"llama-rope-yarn", false},
    {"llama-tied", false},
    {"mistral-window", true},
    {"neox-fullrotary-nobias", false},
    {"neox-parallel", true},
    {"neox-sequential", false},
    {"qwen2", true},
};

INSTANTIATE_TEST_SUITE_P(Variants, VariantsGoldenTest,
                         ::testing::ValuesIn(kVariants),
                         [](const ::testing::TestParamInfo<Variant>& info) {
                           std::string name = info.param.name;
                           for (char& c : name) {
                             if (c == '-') c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace nibble
