#include "models/synthetic/synthetic_shapes.h"

#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/decoder_config.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// Every parameter of a checkpoint: matrices, biases, norms, embedding. A tied
// head counts once more where `tied_twice`, as some files hold it.
int64_t Parameters(const DecoderConfig& c, bool tied_twice = false) {
  const int64_t norm = c.hidden * (c.norm == NormKind::kLayer ? 2 : 1);
  const int64_t norms = c.norm_layout == NormLayout::kShared ? 1 : 2;
  int64_t layer = LayerWeightCount(c) + norms * norm;
  if (c.qkv_bias) layer += c.qkv_dim();
  if (c.output_bias) layer += c.hidden;
  if (c.mlp_bias) layer += (c.gated ? 2 : 1) * c.ffn + c.hidden;
  int64_t all = c.layers * layer + norm + c.vocabulary * c.hidden;
  if (!c.tied_head || tied_twice) all += HeadWeightCount(c);
  if (c.head_bias) all += c.vocabulary;
  return all;
}

// The numbers that the models' publishers and their files state.
TEST(SyntheticShape, HasThePublishedNumberOfParameters) {
  EXPECT_EQ(Parameters(*SyntheticShape("tinyllama-1.1b")), 1'100'048'384);
  EXPECT_EQ(Parameters(*SyntheticShape("llama-2-7b")), 6'738'415'616);
  EXPECT_EQ(Parameters(*SyntheticShape("gptj-6b")), 6'050'882'784);
  EXPECT_EQ(Parameters(*SyntheticShape("gpt-neox-20b")), 20'554'567'680);
  EXPECT_EQ(Parameters(*SyntheticShape("falcon-7b"), /*tied_twice=*/true),
            7'217'189'760);
}

TEST(SyntheticShape, IsAValidConfigurationUnderEveryName) {
  for (const std::string& name : SyntheticShapeNames()) {
    const auto config = SyntheticShape(name);
    ASSERT_THAT(config.status(), testing::IsOk()) << name;
    EXPECT_THAT(ValidateDecoderConfig(*config, name), testing::IsOk());
  }
}

TEST(SyntheticShape, RotatesAsManyDimensionsAsTheModels) {
  EXPECT_EQ(SyntheticShape("gpt-neox-20b")->rope.rotary_dims, 24);
  EXPECT_EQ(SyntheticShape("gptj-6b")->rope.rotary_dims, 64);
  EXPECT_EQ(SyntheticShape("gptj-6b")->rope.style, RopeStyle::kInterleaved);
  EXPECT_EQ(SyntheticShape("falcon-7b")->head_dim, 64);
}

TEST(SyntheticShape, ListsTheNamesWhenItKnowsNone) {
  const absl::Status status = SyntheticShape("llama-8t").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("llama-8t"));
  for (const std::string& name : SyntheticShapeNames()) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

}  // namespace
}  // namespace nibble
