#include "models/families/llama.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"
#include "models/config_reader.h"
#include "models/decoder_config.h"
#include "models/families/family.h"
#include "tensor/io/tensor_source.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;

// Names without data.
class NamesOnly : public TensorSource {
 public:
  explicit NamesOnly(std::vector<std::string> names)
      : names_(std::move(names)) {}
  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(absl::string_view name) const override {
    for (const std::string& known : names_) {
      if (known == name) return true;
    }
    return false;
  }
  absl::StatusOr<TensorView> Find(absl::string_view name) const override {
    return absl::NotFoundError(std::string(name));
  }

 private:
  std::string path_ = "test";
  std::vector<std::string> names_;
};

using Reading = absl::StatusOr<FamilyModel> (*)(ConfigReader&,
                                                const TensorSource&);

constexpr char kBase[] =
    R"("vocab_size": 320, "hidden_size": 64, "intermediate_size": 128,
       "num_hidden_layers": 3, "num_attention_heads": 4,
       "max_position_embeddings": 512)";

absl::StatusOr<FamilyModel> Read(Reading read, const std::string& members,
                                 std::vector<std::string> names = {
                                     "lm_head.weight"}) {
  absl::StatusOr<ConfigReader> reader =
      ConfigReader::Parse(absl::StrCat("{", members, "}"), "config.json");
  if (!reader.ok()) return reader.status();
  return read(*reader, NamesOnly(std::move(names)));
}

DecoderConfig Config(Reading read, const std::string& extra = "") {
  const absl::StatusOr<FamilyModel> model =
      Read(read, absl::StrCat(kBase, extra.empty() ? "" : ", ", extra));
  EXPECT_THAT(model, IsOk());
  return model.ok() ? model->config : DecoderConfig();
}

// The message for kBase with `from` replaced by `to`.
std::string ErrorWhen(const std::string& from, const std::string& to) {
  const std::string base = kBase;
  EXPECT_THAT(base, HasSubstr(from));
  const auto model = Read(ReadLlama, absl::StrReplaceAll(base, {{from, to}}));
  EXPECT_THAT(model, StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("config.json")));
  return std::string(model.status().message());
}

std::string ErrorWith(const std::string& extra, Reading read = ReadLlama) {
  const auto model = Read(read, absl::StrCat(kBase, ", ", extra));
  EXPECT_THAT(model, StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("config.json")));
  return std::string(model.status().message());
}

TEST(LlamaTest, DefaultsAreThoseOfTheConfigurationClass) {
  const DecoderConfig config = Config(ReadLlama);
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.norm_eps, 1e-6f);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rope.style, RopeStyle::kHalf);
  EXPECT_EQ(config.rope.rotary_dims, 16);
  EXPECT_EQ(config.rope.scaling.type, RopeScaling::kNone);
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.mlp_bias);
  EXPECT_FALSE(config.tied_head);
  EXPECT_THAT(config.windows, ElementsAre(0, 0, 0));
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_THAT(config.eos_ids, ElementsAre(2));
}

TEST(LlamaTest, ReadsWhatIsGiven) {
  const DecoderConfig config =
      Config(ReadLlama,
             R"("num_key_value_heads": 2, "head_dim": 24, "rms_norm_eps": 1e-2,
         "rope_theta": 500000.0, "hidden_act": "gelu_pytorch_tanh",
         "attention_bias": true, "mlp_bias": true, "bos_token_id": null,
         "eos_token_id": [5, 6, 7], "tie_word_embeddings": true)");
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 24);
  EXPECT_EQ(config.q_dim(), 96);
  EXPECT_EQ(config.norm_eps, 1e-2f);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_THAT(config.eos_ids, ElementsAre(5, 6, 7));
  EXPECT_TRUE(config.tied_head);
}

TEST(LlamaTest, NullKeyValueHeadsMeansAsManyAsHeads) {
  EXPECT_EQ(Config(ReadLlama, R"("num_key_value_heads": null)").kv_heads, 4);
  EXPECT_EQ(Config(ReadMistral, R"("num_key_value_heads": null)").kv_heads, 4);
}

TEST(LlamaTest, NullEosMeansNone) {
  EXPECT_THAT(Config(ReadLlama, R"("eos_token_id": null)").eos_ids, IsEmpty());
}

TEST(LlamaTest, NamesFollowTheConfiguration) {
  const auto model =
      Read(ReadLlama, absl::StrCat(kBase, R"(, "num_key_value_heads": 2,
                                              "attention_bias": true)"));
  ASSERT_THAT(model, IsOk());
  ASSERT_EQ(model->names.layers.size(), 3u);
  const LayerTensors& layer = model->names.layers[2];
  ASSERT_EQ(layer.qkv.weight.size(), 3u);
  EXPECT_EQ(layer.qkv.weight[1].tensor,
            "model.layers.2.self_attn.k_proj.weight");
  EXPECT_EQ(layer.qkv.weight[1].rows, 32);
  EXPECT_EQ(layer.qkv.bias[0].tensor, "model.layers.2.self_attn.q_proj.bias");
  EXPECT_EQ(layer.attention.bias.size(), 1u);
  EXPECT_THAT(layer.down.bias, IsEmpty());
  EXPECT_EQ(layer.up.weight[1].tensor, "model.layers.2.mlp.up_proj.weight");
  EXPECT_EQ(model->names.head.weight[0].tensor, "lm_head.weight");
}

TEST(LlamaTest, HeadIsTiedWhenNothingSaysOtherwiseAndNoneIsStored) {
  const auto silent = Read(ReadLlama, kBase, {});
  ASSERT_THAT(silent, IsOk());
  EXPECT_TRUE(silent->config.tied_head);
  EXPECT_EQ(silent->names.head.weight[0].tensor, "model.embed_tokens.weight");
  // Said to be untied: the missing head is then found when tensors are checked.
  const auto untied = Read(
      ReadLlama, absl::StrCat(kBase, R"(, "tie_word_embeddings": false)"), {});
  ASSERT_THAT(untied, IsOk());
  EXPECT_FALSE(untied->config.tied_head);
}

TEST(MistralTest, WindowDefaultsTo4096AndNullMeansNone) {
  EXPECT_THAT(Config(ReadMistral, R"("num_key_value_heads": 2)").windows,
              Each(4096));
  EXPECT_THAT(
      Config(ReadMistral, R"("num_key_value_heads": 2, "sliding_window": null)")
          .windows,
      Each(0));
  EXPECT_THAT(
      Config(ReadMistral, R"("num_key_value_heads": 2, "sliding_window": 64)")
          .windows,
      Each(64));
}

TEST(Qwen2Test, HasBiasOnQkvOnly) {
  const DecoderConfig config = Config(ReadQwen2, R"("num_key_value_heads": 2)");
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias || config.mlp_bias);
  EXPECT_FALSE(config.bos_id.has_value());
  EXPECT_THAT(config.eos_ids, IsEmpty());
}

TEST(Qwen2Test, WindowAppliesToLaterLayersAndOnlyWhenUsed) {
  const std::string window =
      R"("num_key_value_heads": 2, "sliding_window": 32,
         "max_window_layers": 1, "use_sliding_window": )";
  EXPECT_THAT(Config(ReadQwen2, window + "false").windows,
              ElementsAre(0, 0, 0));
  EXPECT_THAT(Config(ReadQwen2, window + "true").windows,
              ElementsAre(0, 32, 32));
}

TEST(Qwen2Test, LayerTypesDecideWhereTheyAreGiven) {
  EXPECT_THAT(Config(ReadQwen2,
                     R"("num_key_value_heads": 2, "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention",
                                "sliding_attention"])")
                  .windows,
              ElementsAre(32, 0, 32));
  EXPECT_THAT(ErrorWith(R"("num_key_value_heads": 2,
                           "layer_types": ["full_attention"])",
                        ReadQwen2),
              HasSubstr("1 entries for 3 layers"));
  EXPECT_THAT(
      ErrorWith(R"("num_key_value_heads": 2, "layer_types":
                   ["full_attention", "chunked_attention", "x"])",
                ReadQwen2),
      AllOf(HasSubstr("chunked_attention"), HasSubstr("full_attention")));
}

TEST(RopeConfigTest, ReadsLinearInBothForms) {
  for (const char* text :
       {R"("rope_scaling": {"type": "linear", "factor": 4.0})",
        R"("rope_scaling": {"rope_type": "linear", "factor": 4})",
        R"("rope_parameters": {"rope_type": "linear", "factor": 4.0,
                               "rope_theta": 10000.0})"}) {
    const DecoderConfig config = Config(ReadLlama, text);
    EXPECT_EQ(config.rope.scaling.type, RopeScaling::kLinear) << text;
    EXPECT_EQ(config.rope.scaling.factor, 4.0f) << text;
  }
}

TEST(RopeConfigTest, NestedThetaWinsAndFlatThetaFillsIn) {
  EXPECT_EQ(Config(ReadLlama, R"("rope_theta": 5000.0, "rope_parameters":
                                 {"rope_type": "default", "rope_theta": 1e6})")
                .rope.theta,
            1e6);
  EXPECT_EQ(Config(ReadLlama, R"("rope_theta": 5000.0, "rope_parameters":
                                 {"rope_type": "default"})")
                .rope.theta,
            5000.0);
}

TEST(RopeConfigTest, ReadsDynamicLlama3AndYarn) {
  const DecoderConfig dynamic = Config(
      ReadLlama, R"("rope_scaling": {"type": "dynamic", "factor": 2.0})");
  EXPECT_EQ(dynamic.rope.scaling.type, RopeScaling::kDynamic);
  EXPECT_EQ(dynamic.rope.max_positions, 512);
  const DecoderConfig llama3 =
      Config(ReadLlama,
             R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64})");
  EXPECT_EQ(llama3.rope.scaling.type, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.rope.scaling.original_max_positions, 64);
  const DecoderConfig yarn =
      Config(ReadLlama,
             R"("rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 16,
          "original_max_position_embeddings": 128})");
  EXPECT_EQ(yarn.rope.scaling.type, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope.scaling.beta_fast, 16.0f);
  EXPECT_EQ(yarn.rope.scaling.beta_slow, 1.0f);
  EXPECT_EQ(yarn.rope.scaling.attention_factor, 0.0f);
  EXPECT_EQ(yarn.rope.scaling.original_max_positions, 128);
}

TEST(RopeConfigTest, RejectsTypesItDoesNotKnowAndListsThoseItKnows) {
  for (const char* type : {"longrope", "su", "mrope", ""}) {
    EXPECT_THAT(ErrorWith(absl::StrCat(R"("rope_scaling": {"type": ")", type,
                                       R"(", "factor": 2.0})")),
                AllOf(HasSubstr(absl::StrCat("\"", type, "\"")),
                      HasSubstr("linear, dynamic, llama3, yarn")));
  }
}

TEST(RopeConfigTest, RejectsMissingOrImpossibleSettings) {
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"type": "linear"})"),
              HasSubstr("\"factor\" is missing"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"type": "linear", "factor": 0})"),
              HasSubstr("\"factor\" is 0"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"type": "yarn", "factor": "4"})"),
              HasSubstr("\"factor\" is the string"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"rope_type": "llama3",
                           "factor": 8, "low_freq_factor": 4,
                           "high_freq_factor": 4,
                           "original_max_position_embeddings": 64})"),
              HasSubstr("above low_freq_factor"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"rope_type": "llama3",
                           "factor": 8, "low_freq_factor": 1,
                           "high_freq_factor": 4})"),
              HasSubstr("original_max_position_embeddings"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"type": "yarn", "factor": 4,
                           "beta_fast": 1, "beta_slow": 2})"),
              HasSubstr("above beta_slow"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": {"type": "yarn", "factor": 4,
                           "truncate": false})"),
              HasSubstr("truncate"));
  EXPECT_THAT(ErrorWith(R"("rope_scaling": "linear")"),
              HasSubstr("\"rope_scaling\" is the string"));
  EXPECT_THAT(ErrorWith(R"("rope_theta": 0)"), HasSubstr("rope_theta"));
  EXPECT_THAT(ErrorWith(R"("rope_theta": -1e6)"), HasSubstr("rope_theta"));
  EXPECT_THAT(ErrorWith(R"("rope_parameters":
                           {"full_attention": {"rope_type": "default"}})"),
              HasSubstr("full_attention"));
  EXPECT_THAT(ErrorWith(R"("partial_rotary_factor": 0.5)"),
              HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(ErrorWith(R"("rope_parameters": {"rope_type": "default",
                           "partial_rotary_factor": 0.5})"),
              HasSubstr("partial_rotary_factor"));
}

TEST(HostileConfigTest, RejectsMissingSizes) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size",
                          "num_hidden_layers", "num_attention_heads"}) {
    EXPECT_THAT(ErrorWhen(key, "other"),
                HasSubstr(absl::StrCat("\"", key, "\" is missing")));
  }
}

TEST(HostileConfigTest, RejectsSizesThatAreNotSensibleIntegers) {
  for (const char* value :
       {"0", "-1", "2.5", "64.0", "\"64\"", "1e9", "9223372036854775807",
        "99999999999999999999", "true", "[64]", "{}"}) {
    for (const char* pair :
         {"\"vocab_size\": 320", "\"hidden_size\": 64",
          "\"intermediate_size\": 128", "\"num_hidden_layers\": 3",
          "\"num_attention_heads\": 4", "\"max_position_embeddings\": 512"}) {
      const std::string key =
          std::string(pair).substr(0, std::string(pair).find(':'));
      EXPECT_THAT(ErrorWhen(pair, absl::StrCat(key, ": ", value)),
                  HasSubstr(key))
          << value;
    }
    EXPECT_THAT(ErrorWith(absl::StrCat("\"num_key_value_heads\": ", value)),
                HasSubstr("num_key_value_heads"));
    EXPECT_THAT(
        ErrorWith(absl::StrCat("\"head_dim\": ",
                               std::string(value) == "64" ? "0" : value)),
        HasSubstr("head_dim"));
  }
}

TEST(HostileConfigTest, RejectsHeadsThatDoNotDivide) {
  EXPECT_THAT(
      ErrorWhen("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
      HasSubstr("does not divide hidden_size 64"));
  EXPECT_THAT(ErrorWith("\"num_key_value_heads\": 3"),
              HasSubstr("do not divide among 3"));
  EXPECT_THAT(ErrorWith("\"num_key_value_heads\": 8"),
              HasSubstr("do not divide among 8"));
}

TEST(HostileConfigTest, RejectsOddHeadDimensionUnderRotary) {
  EXPECT_THAT(ErrorWith("\"head_dim\": 15"), HasSubstr("must be even"));
}

TEST(HostileConfigTest, RejectsUnknownActivationAndListsThoseItKnows) {
  EXPECT_THAT(
      ErrorWith("\"hidden_act\": \"relu6\""),
      AllOf(HasSubstr("relu6"), HasSubstr("gelu_new"), HasSubstr("silu")));
  EXPECT_THAT(ErrorWith("\"hidden_act\": 3"), HasSubstr("hidden_act"));
}

TEST(HostileConfigTest, RejectsEpsilonOutOfRange) {
  for (const char* value : {"0", "-1e-5", "2", "\"1e-5\"", "null1"}) {
    const auto model =
        Read(ReadLlama, absl::StrCat(kBase, ", \"rms_norm_eps\": ", value));
    EXPECT_THAT(model, StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("config.json")))
        << value;
  }
}

TEST(HostileConfigTest, RejectsSpecialIdsOutsideTheVocabulary) {
  EXPECT_THAT(ErrorWith("\"eos_token_id\": 320"), HasSubstr("eos_token_id"));
  EXPECT_THAT(ErrorWith("\"eos_token_id\": [2, -1]"),
              HasSubstr("eos_token_id"));
  EXPECT_THAT(ErrorWith("\"bos_token_id\": 320"), HasSubstr("bos_token_id"));
  EXPECT_THAT(ErrorWith("\"bos_token_id\": \"<s>\""),
              HasSubstr("bos_token_id"));
}

TEST(HostileConfigTest, RejectsWindowsOutOfRange) {
  EXPECT_THAT(ErrorWith("\"sliding_window\": 0", ReadMistral),
              HasSubstr("sliding_window"));
  EXPECT_THAT(ErrorWith("\"sliding_window\": -4", ReadMistral),
              HasSubstr("sliding_window"));
}

TEST(HostileConfigTest, RejectsFlagsThatAreNotFlags) {
  EXPECT_THAT(ErrorWith("\"attention_bias\": 1"), HasSubstr("attention_bias"));
  EXPECT_THAT(ErrorWith("\"mlp_bias\": \"no\""), HasSubstr("mlp_bias"));
  EXPECT_THAT(ErrorWith("\"tie_word_embeddings\": 0"),
              HasSubstr("tie_word_embeddings"));
}

}  // namespace
}  // namespace nibble
