#include "models/quantized/quantization_settings.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/config_reader.h"
#include "testing/matchers.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::StatusIs;

absl::StatusOr<QuantizationSettings> Read(absl::string_view json) {
  absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(json, "c.json");
  if (!reader.ok()) return reader.status();
  return QuantizationSettings::Read(*reader);
}

// What every method but compressed-tensors needs.
constexpr char kCommon[] = R"("bits": 4, "group_size": 128)";

TEST(QuantizationSettingsTest, ReadsGptqOfBothVersions) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings first,
      Read(R"({"quant_method": "gptq", "bits": 3, "group_size": -1,
               "sym": false, "desc_act": true})"));
  EXPECT_EQ(first.method, "gptq");
  EXPECT_EQ(first.format, "gptq");
  EXPECT_EQ(first.layout, CodeLayout::kGptq);
  EXPECT_TRUE(first.zeros_less_one);
  EXPECT_EQ(first.common.bits, 3);
  EXPECT_EQ(first.common.group_size, -1);
  EXPECT_FALSE(first.common.symmetric);
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings second,
      Read(R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
               "format": "gptq_v2", "checkpoint_format": "gptq_v2",
               "pack_dtype": "int32", "meta": {"quantizer": []}})"));
  EXPECT_FALSE(second.zeros_less_one);
  EXPECT_TRUE(second.common.symmetric);
}

TEST(QuantizationSettingsTest, ReadsAwqOfBothLayoutsAndBothSpellings) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings gemm,
      Read(R"({"quant_method": "awq", "bits": 4, "group_size": 128,
               "version": "GEMM", "zero_point": true, "sym": false,
               "modules_to_not_convert": ["lm_head"]})"));
  EXPECT_EQ(gemm.layout, CodeLayout::kAwqGemm);
  EXPECT_FALSE(gemm.common.symmetric);
  EXPECT_FALSE(gemm.zeros_less_one);
  EXPECT_THAT(gemm.FormsOf("lm_head"), IsEmpty());
  EXPECT_THAT(gemm.FormsOf("model.layers.0.mlp.up_proj"), SizeIs(1));
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings gemv,
      Read(R"({"zero_point": true, "q_group_size": 64, "w_bit": 4,
               "version": "GEMV"})"));
  EXPECT_EQ(gemv.method, "awq");
  EXPECT_EQ(gemv.layout, CodeLayout::kAwqGemv);
  EXPECT_EQ(gemv.common.group_size, 64);
}

TEST(QuantizationSettingsTest, ReadsAFileThatDoesNotNameItsMethod) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings settings,
      Read(R"({"bits": 4, "group_size": 128, "desc_act": false, "sym": true,
               "damp_percent": 0.01})"));
  EXPECT_EQ(settings.method, "gptq");
}

TEST(QuantizationSettingsTest, ReadsEveryPackingOfAutoRound) {
  struct Case {
    const char* packing;
    CodeLayout layout;
    bool less_one;
  };
  for (const Case& c :
       {Case{"auto_round:auto_gptq", CodeLayout::kGptq, true},
        Case{"auto_round:gptq", CodeLayout::kGptq, true},
        Case{"auto_round:auto_gptq:exllamav2", CodeLayout::kGptq, true},
        Case{"auto-round:auto-gptq", CodeLayout::kGptq, true},
        Case{"auto_round", CodeLayout::kGptq, false},
        Case{"auto_round:gptqmodel", CodeLayout::kGptq, false},
        Case{"auto_round:exllamav2", CodeLayout::kGptq, false},
        Case{"auto_round:auto_awq", CodeLayout::kAwqGemm, false},
        Case{"auto_round:awq", CodeLayout::kAwqGemm, false}}) {
    for (const char* key : {"packing_format", "backend"}) {
      NIBBLE_ASSERT_OK_AND_ASSIGN(
          const QuantizationSettings settings,
          Read(absl::StrCat(R"({"quant_method": "intel/auto-round", )", kCommon,
                            ", \"", key, "\": \"", c.packing, "\"}")));
      EXPECT_EQ(settings.method, "auto-round");
      EXPECT_EQ(settings.layout, c.layout) << c.packing;
      EXPECT_EQ(settings.zeros_less_one, c.less_one) << c.packing;
      EXPECT_THAT(settings.warnings, IsEmpty());
    }
  }
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings silent,
      Read(absl::StrCat(R"({"quant_method": "auto-round", )", kCommon, "}")));
  EXPECT_TRUE(silent.zeros_less_one);
  EXPECT_THAT(silent.warnings, SizeIs(1));
}

TEST(QuantizationSettingsTest, AutoRoundsExtraConfigIsForSingleModules) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings settings,
      Read(R"({"quant_method": "auto-round", "bits": 4, "group_size": 128,
               "packing_format": "auto_round", "extra_config": {
                 "lm_head": {"bits": 8, "sym": false},
                 "model.layers.0.mlp.up_proj": {"bits": 16},
                 ".*down_proj": {"group_size": 32}}})"));
  const std::vector<ModuleForm> head = settings.FormsOf("lm_head");
  ASSERT_THAT(head, SizeIs(1));
  EXPECT_EQ(head[0].bits, 8);
  EXPECT_EQ(head[0].group_size, 128);
  EXPECT_FALSE(head[0].symmetric);
  EXPECT_THAT(settings.FormsOf("model.layers.0.mlp.up_proj"), IsEmpty());
  EXPECT_EQ(settings.FormsOf("model.layers.0.mlp.down_proj")[0].group_size, 32);
  EXPECT_EQ(settings.FormsOf("model.layers.1.mlp.up_proj")[0].bits, 4);
}

TEST(QuantizationSettingsTest, GptqModelsDynamicIsForSingleModules) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(
      const QuantizationSettings settings,
      Read(R"({"quant_method": "gptq", "bits": 4, "group_size": 128,
               "dynamic": {"-:.*k_proj": {}, "+:.*\\.0\\..*": {"bits": 8},
                           ".*down_proj": {"group_size": 32}}})"));
  EXPECT_THAT(settings.FormsOf("model.layers.1.self_attn.k_proj"), IsEmpty());
  EXPECT_EQ(settings.FormsOf("model.layers.0.mlp.up_proj")[0].bits, 8);
  // Two rules: the tensors' shapes will decide.
  EXPECT_THAT(settings.FormsOf("model.layers.0.mlp.down_proj"), SizeIs(2));
}

TEST(QuantizationSettingsTest, ReadsGroupsOfCompressedTensors) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const QuantizationSettings settings, Read(R"({
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "kv_cache_scheme": null, "sparsity_config": {}, "ignore": [
          "lm_head", "re:.*gate.*"],
        "config_groups": {
          "group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "symmetric": true,
            "strategy": "group", "group_size": 128, "actorder": "group"}},
          "group_1": {"targets": ["re:.*down_proj", "model.x"], "weights": {
            "num_bits": 8, "symmetric": false, "strategy": "channel"}}}})"));
  EXPECT_EQ(settings.layout, CodeLayout::kCompressedTensors);
  EXPECT_EQ(settings.common.group_size, 128);
  EXPECT_THAT(settings.FormsOf("lm_head"), IsEmpty());
  EXPECT_THAT(settings.FormsOf("model.layers.0.mlp.gate_proj"), IsEmpty());
  for (const char* module : {"model.x", "model.layers.0.mlp.down_proj"}) {
    ASSERT_THAT(settings.FormsOf(module), SizeIs(1));
    EXPECT_EQ(settings.FormsOf(module)[0].bits, 8);
    EXPECT_EQ(settings.FormsOf(module)[0].group_size, -1);
    EXPECT_FALSE(settings.FormsOf(module)[0].symmetric);
  }
  EXPECT_EQ(settings.FormsOf("model.x2")[0].bits, 4);
}

TEST(QuantizationSettingsTest, ModulesOfNoTargetAreLeftInFloatingPoint) {
  NIBBLE_ASSERT_OK_AND_ASSIGN(const QuantizationSettings settings, Read(R"({
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"targets": ["model.x"], "weights": {
          "num_bits": 4, "strategy": "channel"}}}})"));
  EXPECT_THAT(settings.FormsOf("model.x"), SizeIs(1));
  EXPECT_THAT(settings.FormsOf("model.y"), IsEmpty());
}

TEST(QuantizationSettingsTest, RefusesWhatIsNotSupportedAndSaysWhatIs) {
  struct Case {
    std::string json;
    const char* found;
    const char* supported;
  };
  const std::string ct = R"("quant_method": "compressed-tensors")";
  const auto group = [&](const std::string& weights) {
    return "{" + ct + R"(, "config_groups": {"a": {"targets": ["Linear"],
                          "weights": {)" +
           weights + "}}}}";
  };
  std::vector<Case> cases = {
      {"{}", "missing", "gptq, awq, auto-round"},
      {R"({"quant_method": "gptq", "bits": 5, "group_size": 32})", "\"5\"",
       "2, 3, 4, 8"},
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
           "checkpoint_format": "marlin"})",
       "marlin", "gptq, gptq_v2"},
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
           "is_marlin_format": true})",
       "is_marlin_format", "false"},
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
           "pack_dtype": "int64"})",
       "int64", "int32"},
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
           "dynamic": {"a": {"bits": 6}}})",
       "\"6\"", "2, 3, 4, 8"},
      {R"({"quant_method": "awq", "bits": 4, "group_size": 32,
           "version": "gemv_fast"})",
       "gemv_fast", "gemm, gemv"},
      {R"({"quant_method": "awq", "bits": 4, "group_size": 32,
           "backend": "llm-awq"})",
       "llm-awq", "autoawq"},
      {R"({"quant_method": "awq", "bits": 8, "group_size": 32})", "\"8\"", "4"},
      {R"({"quant_method": "auto-round", "bits": 4, "group_size": 32,
           "packing_format": "auto_round:fp8"})",
       "auto_round:fp8", "auto_round:auto_awq"},
      {R"({"quant_method": "auto-round", "bits": 4, "group_size": 32,
           "packing_format": "auto_round", "data_type": "mx_fp"})",
       "mx_fp", "int"},
      {R"({"quant_method": "auto-round", "bits": 4, "group_size": 32,
           "packing_format": "auto_round", "act_bits": 8})",
       "act_bits", "16"},
      {"{" + ct + R"(, "format": "float-quantized"})", "float-quantized",
       "pack-quantized"},
      {"{" + ct + R"(, "kv_cache_scheme": {"num_bits": 8}})", "kv_cache_scheme",
       "null"},
      {"{" + ct + R"(, "sparsity_config": {"format": "sparse-24-bitmask"}})",
       "sparse-24-bitmask", "dense"},
      {group(R"("num_bits": 4, "type": "float", "strategy": "channel")"),
       "float", "int"},
      {group(R"("num_bits": 1, "strategy": "channel")"), "\"1\"", "2 to 8"},
      {group(R"("num_bits": 4, "strategy": "block")"), "block",
       "group, channel"},
      {group(R"("num_bits": 4)"), "tensor", "group, channel"},
  };
  for (const char* method :
       {"fp8", "bitsandbytes", "hqq", "aqlm", "quanto", "torchao", "mxfp4"}) {
    cases.push_back({absl::StrCat(R"({"quant_method": ")", method, "\"}"),
                     method, "gptq, awq, auto-round, compressed-tensors"});
  }
  for (const Case& c : cases) {
    EXPECT_THAT(Read(c.json),
                StatusIs(absl::StatusCode::kUnimplemented,
                         AllOf(HasSubstr("c.json"), HasSubstr(c.found),
                               HasSubstr(c.supported))))
        << c.json;
  }
}

TEST(QuantizationSettingsTest, RejectsWrongAndContradictoryValues) {
  struct Case {
    const char* json;
    const char* reason;
  };
  for (const Case& c : {
           Case{R"({"quant_method": 4})", "quant_method"},
           Case{R"({"quant_method": "gptq"})", "\"bits\" is missing"},
           Case{R"({"quant_method": "gptq", "bits": "4"})", "the string"},
           Case{R"({"quant_method": "gptq", "bits": 4.0})", "4.0"},
           Case{R"({"quant_method": "gptq", "bits": 4})",
                "\"group_size\" is missing"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 0})",
                "is 0"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": -2})",
                "-2"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": [32]})",
                "an array"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "sym": "yes"})",
                "sym"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "desc_act": 1})",
                "desc_act"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "format": "gptq", "checkpoint_format": "gptq_v2"})",
                "\"checkpoint_format\" is \"gptq_v2\""},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "dynamic": [1]})",
                "dynamic"},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "dynamic": {"a": 8}})",
                "in \"dynamic\""},
           Case{R"({"quant_method": "gptq", "bits": 4, "group_size": 32,
                    "dynamic": {"(": {}}})",
                "regular expression"},
           Case{R"({"quant_method": "awq", "bits": 4, "group_size": 32,
                    "zero_point": true, "sym": true})",
                "contradict"},
           Case{R"({"quant_method": "awq", "bits": 4, "w_bit": 4,
                    "q_group_size": 32})",
                "w_bit"},
           Case{R"({"quant_method": "awq", "bits": 4, "group_size": 32,
                    "modules_to_not_convert": "lm_head"})",
                "modules_to_not_convert"},
           Case{R"({"quant_method": "auto-round", "bits": 4, "group_size": 32,
                    "extra_config": {"a": {"bits": true}}})",
                "extra_config"},
           Case{R"({"quant_method": "compressed-tensors"})", "names no group"},
           Case{R"({"quant_method": "compressed-tensors",
                    "config_groups": {"a": {"targets": ["Linear"]}}})",
                "num_bits"},
           Case{R"({"quant_method": "compressed-tensors",
                    "config_groups": {"a": {"targets": "Linear", "weights": {
                      "num_bits": 4, "strategy": "channel"}}}})",
                "targets"},
           Case{R"({"quant_method": "compressed-tensors",
                    "config_groups": {"a": {"targets": ["Linear"], "weights": {
                      "num_bits": 4, "strategy": "channel",
                      "group_size": 128}}}})",
                "strategy"},
           Case{R"({"quant_method": "compressed-tensors",
                    "config_groups": {"a": {"targets": ["Linear"], "weights": {
                      "num_bits": 4, "strategy": "group"}}}})",
                "strategy"},
           Case{R"({"quant_method": "compressed-tensors",
                    "config_groups": {"a": 3}})",
                "config_groups"},
       }) {
    EXPECT_THAT(Read(c.json),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("c.json"), HasSubstr(c.reason))))
        << c.json;
  }
}

}  // namespace
}  // namespace nibble
