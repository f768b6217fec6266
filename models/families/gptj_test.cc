#include "models/families/gptj.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "models/families/family_testing.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::FamilyFixture;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RangesOf;

const FamilyFixture& GptJ() {
  static const FamilyFixture* const fixture = new FamilyFixture{
      ReadGptJ,
      R"({"vocab_size": 60000, "n_embd": 256, "n_layer": 3, "n_head": 2})",
      {{"lm_head.weight", {60000, 256}}}};
  return *fixture;
}

TEST(GptJTest, DefaultsAreThoseOfTheConfigurationClass) {
  const DecoderConfig config = GptJ().Config();
  EXPECT_EQ(config.family, "gptj");
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.ffn, 1024);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.residual, Residual::kParallel);
  EXPECT_EQ(config.norm_layout, NormLayout::kShared);
  EXPECT_EQ(config.rope.style, RopeStyle::kInterleaved);
  EXPECT_EQ(config.rope.rotary_dims, 64);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_FALSE(config.gated || config.alibi);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.tied_head);
  EXPECT_TRUE(config.mlp_bias && config.head_bias);
  EXPECT_THAT(config.windows, ElementsAre(0, 0, 0));
  EXPECT_EQ(config.bos_id, 50256);
  EXPECT_THAT(config.eos_ids, ElementsAre(50256));
}

TEST(GptJTest, ReadsWhatIsGiven) {
  const DecoderConfig config = GptJ().Config(
      R"({"n_inner": 700, "n_positions": 99, "rotary_dim": 8,
          "layer_norm_epsilon": 1e-3, "activation_function": "gelu",
          "bos_token_id": 1, "eos_token_id": [2, 3]})");
  EXPECT_EQ(config.ffn, 700);
  EXPECT_EQ(config.max_positions, 99);
  EXPECT_EQ(config.rope.max_positions, 99);
  EXPECT_EQ(config.rope.rotary_dims, 8);
  EXPECT_EQ(config.norm_eps, 1e-3f);
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_THAT(config.eos_ids, ElementsAre(2, 3));
}

TEST(GptJTest, TakesTheGeneralNamesOfItsSizesToo) {
  FamilyFixture fixture = GptJ();
  fixture.base = R"({"vocab_size": 320, "hidden_size": 256,
                     "num_hidden_layers": 3, "num_attention_heads": 2,
                     "max_position_embeddings": 77})";
  const DecoderConfig config = fixture.Config();
  EXPECT_EQ(config.hidden, 256);
  EXPECT_EQ(config.layers, 3);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.max_positions, 77);
  // The class's 50256 is not in this vocabulary.
  EXPECT_THAT(config.eos_ids, IsEmpty());
}

TEST(GptJTest, InnerSizeNullMeansFourTimesHidden) {
  EXPECT_EQ(GptJ().Config(R"({"n_inner": null})").ffn, 1024);
}

TEST(GptJTest, NamesFollowTheConfiguration) {
  const FamilyModel model = GptJ().Model();
  EXPECT_EQ(model.names.embedding, "transformer.wte.weight");
  ASSERT_EQ(model.names.layers.size(), 3u);
  const LayerTensors& layer = model.names.layers[2];
  EXPECT_EQ(layer.attention_norm.weight, "transformer.h.2.ln_1.weight");
  EXPECT_EQ(layer.attention_norm.bias, "transformer.h.2.ln_1.bias");
  EXPECT_THAT(layer.mlp_norm.weight, IsEmpty());
  EXPECT_THAT(RangesOf(layer.qkv.weight),
              ElementsAre("transformer.h.2.attn.q_proj.weight[0, 256)",
                          "transformer.h.2.attn.k_proj.weight[0, 256)",
                          "transformer.h.2.attn.v_proj.weight[0, 256)"));
  EXPECT_THAT(layer.qkv.bias, IsEmpty());
  EXPECT_THAT(RangesOf(layer.attention.weight),
              ElementsAre("transformer.h.2.attn.out_proj.weight[0, 256)"));
  EXPECT_THAT(layer.attention.bias, IsEmpty());
  EXPECT_THAT(RangesOf(layer.up.weight),
              ElementsAre("transformer.h.2.mlp.fc_in.weight[0, 1024)"));
  EXPECT_THAT(RangesOf(layer.up.bias),
              ElementsAre("transformer.h.2.mlp.fc_in.bias[0, 1024)"));
  EXPECT_THAT(RangesOf(layer.down.weight),
              ElementsAre("transformer.h.2.mlp.fc_out.weight[0, 256)"));
  EXPECT_THAT(RangesOf(layer.down.bias),
              ElementsAre("transformer.h.2.mlp.fc_out.bias[0, 256)"));
  EXPECT_EQ(model.names.final_norm.bias, "transformer.ln_f.bias");
  EXPECT_THAT(RangesOf(model.names.head.weight),
              ElementsAre("lm_head.weight[0, 60000)"));
  EXPECT_THAT(RangesOf(model.names.head.bias),
              ElementsAre("lm_head.bias[0, 60000)"));
  EXPECT_THAT(model.names.ignored,
              AllOf(Contains("*.attn.bias"), Contains("*.attn.masked_bias")));
}

TEST(GptJTest, TiedHeadKeepsItsBias) {
  FamilyFixture fixture = GptJ();
  const FamilyModel said = fixture.Model(R"({"tie_word_embeddings": true})");
  fixture.tensors.clear();
  const FamilyModel headless = fixture.Model();
  for (const FamilyModel& model : {said, headless}) {
    EXPECT_TRUE(model.config.tied_head && model.config.head_bias);
    EXPECT_EQ(model.names.head.weight[0].tensor, "transformer.wte.weight");
    EXPECT_EQ(model.names.head.bias[0].tensor, "lm_head.bias");
  }
  EXPECT_FALSE(fixture.Config(R"({"tie_word_embeddings": false})").tied_head);
}

TEST(HostileGptJTest, RejectsBadSizes) {
  GptJ().ExpectRefusesBadSizes({"vocab_size", "n_embd", "n_layer", "n_head"});
  GptJ().ExpectRefuses("n_inner", {"0", "-1", "2.5", "\"64\"", "8388608"});
  GptJ().ExpectRefuses("n_positions", {"0", "-1", "1e9", "\"x\""});
  GptJ().ExpectRefuses("n_head", {"3"});  // does not divide 256
}

TEST(HostileGptJTest, RejectsRotaryDimensionsThatDoNotFit) {
  GptJ().ExpectRefuses("rotary_dim", {"0", "-2", "null", "4096", "1.5"});
  EXPECT_THAT(GptJ().Error(R"({"rotary_dim": 7})"), HasSubstr("even"));
  EXPECT_THAT(GptJ().Error(R"({"rotary_dim": 130})"),
              HasSubstr("130 of 128 dimensions"));
  // The default of 64 is more than a head of 32 has.
  EXPECT_THAT(GptJ().Error(R"({"n_head": 8})"),
              HasSubstr("64 of 32 dimensions"));
}

TEST(HostileGptJTest, RejectsOtherSettingsOutOfRange) {
  GptJ().ExpectRefuses("layer_norm_epsilon", {"0", "-1e-5", "2", "\"1e-5\""});
  GptJ().ExpectRefuses("eos_token_id", {"60000", "-1", "[1, 60000]"});
  GptJ().ExpectRefuses("tie_word_embeddings", {"1", "\"no\""});
  EXPECT_THAT(GptJ().Error(R"({"activation_function": "relu"})"),
              AllOf(HasSubstr("relu"), HasSubstr("gelu_new")));
}

}  // namespace
}  // namespace nibble
