#include "models/families/falcon.h"

#include <map>
#include <string>

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
#include "tensor/shape.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FamilyFixture;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RangesOf;
using testing::StatusIs;

constexpr char kSizes[] =
    R"("vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2,
       "num_attention_heads": 4)";

// Fused tensors of two layers, of four heads of 16.
std::map<std::string, Shape> Fused(int64_t rows) {
  std::map<std::string, Shape> shapes;
  for (int layer = 0; layer < 2; ++layer) {
    shapes[absl::StrCat("transformer.h.", layer,
                        ".self_attention.query_key_value.weight")] = {rows, 64};
  }
  return shapes;
}

FamilyFixture Falcon7B() {
  return {ReadFalcon, absl::StrCat("{", kSizes, "}"), Fused(96)};
}

FamilyFixture Falcon40B() {
  return {ReadFalcon,
          absl::StrCat("{", kSizes, R"(, "num_kv_heads": 2, "multi_query": true,
                                        "new_decoder_architecture": true})"),
          Fused(128)};
}

FamilyFixture FalconRw() {
  return {ReadFalcon,
          absl::StrCat("{", kSizes, R"(, "alibi": true, "bias": true,
                          "multi_query": false, "parallel_attn": false})"),
          Fused(192)};
}

// The first published form: other names, other defaults.
FamilyFixture RefinedWeb(const std::string& members, int64_t rows) {
  return {ReadRefinedWeb,
          absl::StrCat(R"({"vocab_size": 320, "hidden_size": 64, "n_head": 4,
                           "n_layer": 2, )",
                       members, "}"),
          Fused(rows)};
}

TEST(FalconTest, DefaultsAreThoseOfTheConfigurationClassThe7BForm) {
  const DecoderConfig config = Falcon7B().Config();
  EXPECT_EQ(config.family, "falcon");
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 1);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.ffn, 256);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.residual, Residual::kParallel);
  EXPECT_EQ(config.norm_layout, NormLayout::kShared);
  EXPECT_EQ(config.rope.style, RopeStyle::kHalf);
  EXPECT_EQ(config.rope.rotary_dims, 16);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_FALSE(config.gated || config.alibi);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.mlp_bias ||
               config.head_bias);
  EXPECT_TRUE(config.tied_head);
  EXPECT_THAT(config.windows, ElementsAre(0, 0));
  EXPECT_EQ(config.bos_id, 11);
  EXPECT_THAT(config.eos_ids, ElementsAre(11));
}

// Newer files of the 7B form state as many key/value heads as heads.
TEST(FalconTest, MultiQueryMeansOneKvHeadWhateverTheFileStates) {
  EXPECT_EQ(Falcon7B().Config(R"({"num_kv_heads": 4})").kv_heads, 1);
  EXPECT_EQ(Falcon40B().Config().kv_heads, 2);
}

TEST(FalconTest, ReadsWhatIsGiven) {
  const DecoderConfig config = Falcon7B().Config(
      R"({"ffn_hidden_size": 200, "max_position_embeddings": 99,
          "layer_norm_epsilon": 1e-3, "activation": "gelu_new",
          "rope_theta": 5000, "bos_token_id": 1, "eos_token_id": [2, 3]})");
  EXPECT_EQ(config.ffn, 200);
  EXPECT_EQ(config.rope.max_positions, 99);
  EXPECT_EQ(config.norm_eps, 1e-3f);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_EQ(config.rope.theta, 5000.0);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_THAT(config.eos_ids, ElementsAre(2, 3));
  EXPECT_EQ(Falcon7B()
                .Config(R"({"ffn_hidden_size": null, "rope_parameters":
                            {"rope_type": "default", "rope_theta": 500042.0}})")
                .rope.theta,
            500042.0);
}

TEST(FalconTest, NamesOfThe7BForm) {
  const FamilyModel model = Falcon7B().Model();
  EXPECT_EQ(model.names.embedding, "transformer.word_embeddings.weight");
  const std::string prefix = "transformer.h.1.";
  const LayerTensors& layer = model.names.layers[1];
  EXPECT_EQ(layer.attention_norm.weight, prefix + "input_layernorm.weight");
  EXPECT_THAT(layer.mlp_norm.weight, IsEmpty());
  // One group: q, k, v as the decoder wants them.
  EXPECT_THAT(
      RangesOf(layer.qkv.weight),
      ElementsAre(prefix + "self_attention.query_key_value.weight[0, 96)"));
  EXPECT_THAT(RangesOf(layer.attention.weight),
              ElementsAre(prefix + "self_attention.dense.weight[0, 64)"));
  EXPECT_THAT(RangesOf(layer.up.weight),
              ElementsAre(prefix + "mlp.dense_h_to_4h.weight[0, 256)"));
  EXPECT_THAT(RangesOf(layer.down.weight),
              ElementsAre(prefix + "mlp.dense_4h_to_h.weight[0, 64)"));
  EXPECT_THAT(layer.qkv.bias, IsEmpty());
  EXPECT_EQ(model.names.final_norm.bias, "transformer.ln_f.bias");
}

// Stored as [2 groups][2 of q, k, v][16].
TEST(FalconTest, The40BFormHasTwoNormsAndGroups) {
  const FamilyModel model = Falcon40B().Model();
  EXPECT_EQ(model.config.residual, Residual::kParallel);
  EXPECT_EQ(model.config.norm_layout, NormLayout::kSeparate);
  const LayerTensors& layer = model.names.layers[0];
  EXPECT_EQ(layer.attention_norm.weight, "transformer.h.0.ln_attn.weight");
  EXPECT_EQ(layer.mlp_norm.bias, "transformer.h.0.ln_mlp.bias");
  const std::string name =
      "transformer.h.0.self_attention.query_key_value.weight";
  EXPECT_THAT(
      RangesOf(layer.qkv.weight),
      ElementsAre(name + "[0, 32)", name + "[64, 96)", name + "[32, 48)",
                  name + "[96, 112)", name + "[48, 64)", name + "[112, 128)"));
}

TEST(FalconTest, The11BFormHasGroupsAndOneNorm) {
  const FamilyModel model =
      Falcon40B().Model(R"({"num_ln_in_parallel_attn": 1})");
  EXPECT_EQ(model.config.norm_layout, NormLayout::kShared);
  EXPECT_EQ(model.config.kv_heads, 2);
  EXPECT_EQ(model.names.layers[0].attention_norm.weight,
            "transformer.h.0.input_layernorm.weight");
  EXPECT_EQ(
      Falcon40B().Config(R"({"num_ln_in_parallel_attn": null})").norm_layout,
      NormLayout::kSeparate);
}

TEST(FalconTest, TheRwFormHasAlibiBiasesAndAKvHeadForEachHead) {
  const FamilyModel model = FalconRw().Model();
  const DecoderConfig& config = model.config;
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.residual, Residual::kSequential);
  EXPECT_EQ(config.norm_layout, NormLayout::kSeparate);
  EXPECT_EQ(config.rope.style, RopeStyle::kNone);
  EXPECT_TRUE(config.alibi);
  EXPECT_EQ(config.alibi_scale, 0.25f);  // 1 / sqrt(16)
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
  EXPECT_FALSE(config.head_bias);
  const LayerTensors& layer = model.names.layers[1];
  EXPECT_EQ(layer.attention_norm.weight,
            "transformer.h.1.input_layernorm.weight");
  EXPECT_EQ(layer.mlp_norm.weight,
            "transformer.h.1.post_attention_layernorm.weight");
  ASSERT_EQ(layer.qkv.weight.size(), 12u);
  EXPECT_EQ(layer.qkv.weight[1].first_row, 48);  // the second head's q
  ASSERT_EQ(layer.qkv.bias.size(), 12u);
  EXPECT_EQ(layer.qkv.bias[4].first_row, 16);  // the first head's k
  EXPECT_EQ(layer.attention.bias.size(), 1u);
  EXPECT_EQ(layer.up.bias.size(), 1u);
  EXPECT_EQ(layer.down.bias.size(), 1u);
}

TEST(FalconTest, AStoredHeadIsUsedUnlessTheFileTiesIt) {
  const FamilyFixture with = Falcon7B().With({{"lm_head.weight", {320, 64}}});
  EXPECT_FALSE(with.Config().tied_head);
  EXPECT_EQ(with.Model().names.head.weight[0].tensor, "lm_head.weight");
  const FamilyModel tied = with.Model(R"({"tie_word_embeddings": true})");
  EXPECT_TRUE(tied.config.tied_head);
  EXPECT_EQ(tied.names.head.weight[0].tensor,
            "transformer.word_embeddings.weight");
  EXPECT_THAT(tied.names.ignored, ::testing::Contains("lm_head.weight"));
  EXPECT_FALSE(
      Falcon7B().Config(R"({"tie_word_embeddings": false})").tied_head);
}

TEST(RefinedWebTest, ReadsTheFirst7BForm) {
  const DecoderConfig config =
      RefinedWeb(R"("multi_query": true, "parallel_attn": true)", 96).Config();
  EXPECT_EQ(config.family, "falcon");
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.kv_heads, 1);
  EXPECT_EQ(config.norm_layout, NormLayout::kShared);
}

TEST(RefinedWebTest, TwoStoredNormsTellThe40BForm) {
  const FamilyFixture fixture =
      RefinedWeb(R"("n_head_kv": 2, "parallel_attn": true)", 128)
          .With({{"transformer.h.0.ln_attn.weight", {64}}});
  const DecoderConfig config = fixture.Config();
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.norm_layout, NormLayout::kSeparate);
  EXPECT_EQ(fixture.Model().names.layers[0].attention_norm.weight,
            "transformer.h.0.ln_attn.weight");
}

TEST(RefinedWebTest, WhatItDoesNotSayIsAPlainTransformer) {
  const DecoderConfig config = RefinedWeb(R"("alibi": false)", 192).Config();
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.residual, Residual::kSequential);
}

TEST(HostileFalconTest, RejectsFusedTensorThatIsMissingOrOfAnotherShape) {
  EXPECT_THAT(Falcon7B().Read(R"({"num_hidden_layers": 3})"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("h.2.self_attention.query_key_value")));
  EXPECT_THAT(Falcon7B().Read(R"({"multi_query": false})"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("query_key_value.weight"),
                             HasSubstr("[96, 64]"), HasSubstr("[192, 64]"))));
}

TEST(HostileFalconTest, RejectsBadSizes) {
  Falcon7B().ExpectRefusesBadSizes({"vocab_size", "hidden_size",
                                    "num_hidden_layers",
                                    "num_attention_heads"});
  Falcon7B().ExpectRefuses("num_attention_heads", {"3"});
  Falcon7B().ExpectRefuses("ffn_hidden_size", {"0", "-1", "2.5", "8388608"});
  Falcon7B().ExpectRefuses("max_position_embeddings", {"0", "-1", "\"9\""});
  Falcon40B().ExpectRefuses("num_kv_heads", {"0", "-1", "70000", "\"2\""});
  EXPECT_THAT(Falcon40B().Error(R"({"num_kv_heads": 3})"),
              HasSubstr("do not divide among 3"));
}

TEST(HostileFalconTest, RejectsOddHeadsUnderRotaryEmbedding) {
  EXPECT_THAT(Falcon7B().Error(R"({"hidden_size": 60})"), HasSubstr("even"));
}

TEST(HostileFalconTest, RejectsGraphsThatNoFalconHas) {
  EXPECT_THAT(Falcon40B().Error(R"({"parallel_attn": false})"),
              HasSubstr("parallel_attn"));
  EXPECT_THAT(Falcon7B().Error(R"({"num_ln_in_parallel_attn": 2})"),
              HasSubstr("num_ln_in_parallel_attn"));
  Falcon40B().ExpectRefuses("num_ln_in_parallel_attn", {"0", "3", "\"1\""});
  Falcon7B().ExpectRefuses("apply_residual_connection_post_layernorm",
                           {"true", "1"});
}

TEST(HostileFalconTest, RejectsOtherSettingsOutOfRange) {
  for (const char* flag : {"multi_query", "parallel_attn", "bias", "alibi",
                           "new_decoder_architecture", "tie_word_embeddings"}) {
    Falcon7B().ExpectRefuses(flag, {"1", "\"true\""});
  }
  Falcon7B().ExpectRefuses("layer_norm_epsilon", {"0", "-1", "2"});
  Falcon7B().ExpectRefuses("eos_token_id", {"320", "-1"});
  Falcon7B().ExpectRefuses("rope_theta", {"0", "-1"});
  EXPECT_THAT(Falcon7B().Error(R"({"activation": "relu"})"),
              AllOf(HasSubstr("relu"), HasSubstr("gelu_new")));
  EXPECT_THAT(Falcon7B().Error(R"({"rope_scaling": {"type": "su"}})"),
              HasSubstr("su"));
}

}  // namespace
}  // namespace nibble
