#include "models/families/gpt_neox.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "models/families/family_testing.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::FamilyFixture;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RangesOf;
using testing::StatusIs;

constexpr char kQkv[] = "gpt_neox.layers.1.attention.query_key_value.weight";

const FamilyFixture& NeoX() {
  static const FamilyFixture* const fixture = new FamilyFixture{
      ReadGptNeoX,
      R"({"vocab_size": 320, "hidden_size": 96, "intermediate_size": 200,
          "num_hidden_layers": 2, "num_attention_heads": 3})",
      {{"embed_out.weight", {320, 96}},
       {"gpt_neox.layers.0.attention.query_key_value.weight", {288, 96}},
       {kQkv, {288, 96}}}};
  return *fixture;
}

TEST(GptNeoXTest, DefaultsAreThoseOfTheConfigurationClass) {
  const DecoderConfig config = NeoX().Config();
  EXPECT_EQ(config.family, "gpt_neox");
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.residual, Residual::kParallel);
  EXPECT_EQ(config.norm_layout, NormLayout::kSeparate);
  EXPECT_EQ(config.rope.style, RopeStyle::kHalf);
  EXPECT_EQ(config.rope.rotary_dims, 8);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
  EXPECT_FALSE(config.gated || config.head_bias || config.tied_head);
  EXPECT_THAT(config.windows, ElementsAre(0, 0));
  EXPECT_EQ(config.bos_id, 0);
  EXPECT_THAT(config.eos_ids, ElementsAre(2));
}

TEST(GptNeoXTest, ReadsTheFlatForm) {
  const DecoderConfig config = NeoX().Config(
      R"({"rotary_pct": 0.5, "rotary_emb_base": 5000, "layer_norm_eps": 1e-3,
          "max_position_embeddings": 99, "use_parallel_residual": false,
          "attention_bias": false, "eos_token_id": 0})");
  EXPECT_EQ(config.rope.rotary_dims, 16);
  EXPECT_EQ(config.rope.theta, 5000.0);
  EXPECT_EQ(config.rope.max_positions, 99);
  EXPECT_EQ(config.norm_eps, 1e-3f);
  EXPECT_EQ(config.residual, Residual::kSequential);
  EXPECT_EQ(config.norm_layout, NormLayout::kSeparate);
  EXPECT_FALSE(config.qkv_bias || config.output_bias);
  EXPECT_TRUE(config.mlp_bias);
  EXPECT_THAT(config.eos_ids, ElementsAre(0));
}

TEST(GptNeoXTest, ReadsTheNestedFormWhichWins) {
  const DecoderConfig config = NeoX().Config(
      R"({"rotary_pct": 0.5, "rotary_emb_base": 5000,
          "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0,
                              "partial_rotary_factor": 1.0}})");
  EXPECT_EQ(config.rope.rotary_dims, 32);
  EXPECT_EQ(config.rope.theta, 20000.0);
  const DecoderConfig newer =
      NeoX().Config(R"({"partial_rotary_factor": 0.75, "rope_theta": 400})");
  EXPECT_EQ(newer.rope.rotary_dims, 24);
  EXPECT_EQ(newer.rope.theta, 400.0);
}

TEST(GptNeoXTest, RotaryShareIsRoundedDown) {
  EXPECT_EQ(NeoX().Config(R"({"rotary_pct": 0.33})").rope.rotary_dims, 10);
  // 9.6, thus 9, which are no pairs.
  EXPECT_THAT(NeoX().Error(R"({"rotary_pct": 0.3})"), HasSubstr("even"));
}

TEST(GptNeoXTest, ReadsRopeScaling) {
  const DecoderConfig config =
      NeoX().Config(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})");
  EXPECT_EQ(config.rope.scaling.type, RopeScaling::kLinear);
  EXPECT_EQ(config.rope.rotary_dims, 8);
}

TEST(GptNeoXTest, EveryGeluIsTheOneItsNameSays) {
  const std::vector<std::pair<std::string, Activation>> names = {
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"quick_gelu", Activation::kQuickGelu}};
  for (const auto& [name, activation] : names) {
    EXPECT_EQ(NeoX()
                  .Config(absl::StrCat(R"({"hidden_act": ")", name, "\"}"))
                  .activation,
              activation)
        << name;
  }
}

TEST(GptNeoXTest, NamesFollowTheConfiguration) {
  const FamilyModel model = NeoX().Model();
  EXPECT_EQ(model.names.embedding, "gpt_neox.embed_in.weight");
  const LayerTensors& layer = model.names.layers[1];
  const std::string prefix = "gpt_neox.layers.1.";
  EXPECT_EQ(layer.attention_norm.weight, prefix + "input_layernorm.weight");
  EXPECT_EQ(layer.mlp_norm.bias, prefix + "post_attention_layernorm.bias");
  EXPECT_THAT(RangesOf(layer.attention.weight),
              ElementsAre(prefix + "attention.dense.weight[0, 96)"));
  EXPECT_THAT(RangesOf(layer.attention.bias),
              ElementsAre(prefix + "attention.dense.bias[0, 96)"));
  EXPECT_THAT(RangesOf(layer.up.bias),
              ElementsAre(prefix + "mlp.dense_h_to_4h.bias[0, 200)"));
  EXPECT_THAT(RangesOf(layer.down.weight),
              ElementsAre(prefix + "mlp.dense_4h_to_h.weight[0, 96)"));
  EXPECT_EQ(model.names.final_norm.weight, "gpt_neox.final_layer_norm.weight");
  EXPECT_THAT(RangesOf(model.names.head.weight),
              ElementsAre("embed_out.weight[0, 320)"));
  EXPECT_THAT(model.names.head.bias, IsEmpty());
  EXPECT_THAT(model.names.ignored, AllOf(Contains("*.attention.bias"),
                                         Contains("*.attention.masked_bias"),
                                         Contains("*.rotary_emb.inv_freq")));
}

// Stored as [head][q, k, v][32].
TEST(GptNeoXTest, TakesQueriesKeysAndValuesOutOfEachHead) {
  const LayerTensors layer = NeoX().Model().names.layers[1];
  const std::string name = kQkv;
  EXPECT_THAT(
      RangesOf(layer.qkv.weight),
      ElementsAre(name + "[0, 32)", name + "[96, 128)", name + "[192, 224)",
                  name + "[32, 64)", name + "[128, 160)", name + "[224, 256)",
                  name + "[64, 96)", name + "[160, 192)", name + "[256, 288)"));
  ASSERT_EQ(layer.qkv.bias.size(), 9u);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(layer.qkv.bias[i].first_row, layer.qkv.weight[i].first_row);
    EXPECT_EQ(layer.qkv.bias[i].rows, 32);
    EXPECT_EQ(layer.qkv.bias[i].tensor,
              "gpt_neox.layers.1.attention.query_key_value.bias");
  }
  EXPECT_THAT(
      NeoX().Model(R"({"attention_bias": false})").names.layers[0].qkv.bias,
      IsEmpty());
}

TEST(HostileGptNeoXTest, RejectsFusedTensorThatIsMissingOrOfAnotherShape) {
  EXPECT_THAT(NeoX().Read(R"({"num_hidden_layers": 4096})"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("layers.2.attention.query_key_value")));
  // More heads than the file has rows for: no list of ranges is made.
  EXPECT_THAT(
      NeoX().Read(R"({"hidden_size": 524288, "rotary_pct": 1,
                              "num_attention_heads": 65536})"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("query_key_value.weight"),
                     HasSubstr("[288, 96]"), HasSubstr("[1572864, 524288]"))));
}

TEST(HostileGptNeoXTest, RejectsBadSizes) {
  NeoX().ExpectRefusesBadSizes({"vocab_size", "hidden_size",
                                "intermediate_size", "num_hidden_layers",
                                "num_attention_heads"});
  NeoX().ExpectRefuses("num_attention_heads", {"5"});  // does not divide 96
  NeoX().ExpectRefuses("max_position_embeddings", {"0", "-1", "\"2048\""});
}

TEST(HostileGptNeoXTest, RejectsOtherSettingsOutOfRange) {
  NeoX().ExpectRefuses("rotary_pct", {"-0.5", "1.5", "\"0.25\"", "1e300"});
  NeoX().ExpectRefuses("partial_rotary_factor", {"-0.5", "1.5"});
  NeoX().ExpectRefuses("rotary_emb_base", {"0", "-1", "1e300", "\"x\""});
  NeoX().ExpectRefuses("layer_norm_eps", {"0", "-1", "2"});
  NeoX().ExpectRefuses("use_parallel_residual", {"1", "\"true\""});
  NeoX().ExpectRefuses("attention_bias", {"0"});
  NeoX().ExpectRefuses("eos_token_id", {"320", "-1"});
  NeoX().ExpectRefuses("rope_parameters", {"7", "[]"});
  EXPECT_THAT(NeoX().Error(R"({"rope_parameters":
                               {"partial_rotary_factor": 2}})"),
              HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(NeoX().Error(R"({"rotary_pct": 0})"), HasSubstr("rotary"));
  EXPECT_THAT(NeoX().Error(R"({"hidden_act": "tanh"})"),
              AllOf(HasSubstr("tanh"), HasSubstr("gelu_fast")));
}

}  // namespace
}  // namespace nibble
