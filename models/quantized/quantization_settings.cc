#include "models/quantized/quantization_settings.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "models/config_reader.h"
#include "models/quantized/module_rules.h"
#include "models/quantized/stored_codes.h"

namespace nibble {

std::vector<ModuleForm> QuantizationSettings::FormsOf(
    absl::string_view module) const {
  std::optional<std::vector<ModuleForm>> forms = rules_.FormsOf(module);
  if (forms) return *std::move(forms);
  if (only_rules_) return {};
  return {common};
}

// Fills in QuantizationSettings field by field; `json` keeps the first problem.
class SettingsReader {
 public:
  SettingsReader(ConfigReader& json, QuantizationSettings& settings)
      : json_(json), settings_(settings) {}

  absl::Status Read();

 private:
  void ReadGptq();
  void ReadAwq();
  void ReadAutoRound();
  void ReadCompressedTensors();
  void ReadConfigGroup(ConfigReader group, absl::string_view format);

  // Reads "bits", "group_size" and "sym", each or that of `fallback`.
  static ModuleForm ReadForm(ConfigReader& json, const ModuleForm& fallback,
                             bool required);
  void CheckBits(ConfigReader& json, absl::string_view key, int bits);
  void ReadOverrides(absl::string_view key, ModuleRules::Match match);
  void ReadNotConverted(absl::string_view key);
  void AddTarget(absl::string_view key, absl::string_view target,
                 std::optional<ModuleForm> form);
  void AddRule(absl::string_view key, ModuleRules::Rule rule);
  void RefuseActivations(ConfigReader& json);

  // Reports `key`, whose value is `found`, with what is supported.
  void Unsupported(ConfigReader& json, absl::string_view key,
                   absl::string_view found, absl::string_view supported);

  ConfigReader& json_;
  QuantizationSettings& settings_;
};

void SettingsReader::Unsupported(ConfigReader& json, absl::string_view key,
                                 absl::string_view found,
                                 absl::string_view supported) {
  json.Adopt(absl::UnimplementedError(absl::StrCat(
      json.source(), ": \"", key, "\" is \"", found.substr(0, 60),
      "\", which is not supported; supported: ", supported,
      "; or use the float checkpoint that this one was made from")));
}

// The first of `keys` that is there, in lower case. Those that are there must
// agree.
std::string AgreedString(ConfigReader& json,
                         absl::Span<const absl::string_view> keys,
                         absl::string_view fallback) {
  std::string agreed, from;
  for (const absl::string_view key : keys) {
    if (!json.Has(key)) continue;
    const std::string value =
        absl::AsciiStrToLower(json.StringOr(key, "")).substr(0, 60);
    if (!from.empty() && value != agreed) {
      json.Fail(key, absl::StrCat("is \"", value, "\", but \"", from,
                                  "\" is \"", agreed, "\""));
    }
    if (from.empty()) agreed = value;
    if (from.empty()) from = std::string(key);
  }
  return from.empty() ? std::string(fallback) : agreed;
}

ModuleForm SettingsReader::ReadForm(ConfigReader& json,
                                    const ModuleForm& fallback, bool required) {
  constexpr IntRange kBits = {1, 64};
  constexpr IntRange kGroupSize = {-1, 1 << 24};
  ModuleForm form = fallback;
  if (required || json.Has("bits")) {
    form.bits = static_cast<int>(json.Int("bits", kBits));
  }
  if (required || json.Has("group_size")) {
    form.group_size = json.Int("group_size", kGroupSize);
    if (form.group_size == 0) {
      json.Fail("group_size", "is 0; it must be -1, for whole rows, or more");
    }
  }
  form.symmetric = json.BoolOr("sym", fallback.symmetric);
  return form;
}

void SettingsReader::CheckBits(ConfigReader& json, absl::string_view key,
                               int bits) {
  switch (settings_.layout) {
    case CodeLayout::kGptq:
      if (bits == 2 || bits == 3 || bits == 4 || bits == 8) return;
      return Unsupported(json, key, absl::StrCat(bits), "2, 3, 4, 8");
    case CodeLayout::kAwqGemm:
    case CodeLayout::kAwqGemv:
      if (bits == 4) return;
      return Unsupported(json, key, absl::StrCat(bits), "4");
    case CodeLayout::kCompressedTensors:
      if (bits >= 2 && bits <= 8) return;
      return Unsupported(json, key, absl::StrCat(bits), "2 to 8");
  }
}

// Activations that the format rounds too: their scales, and the layouts made
// for them, are others.
void SettingsReader::RefuseActivations(ConfigReader& json) {
  constexpr IntRange kBits = {1, 64};
  const int64_t bits = json.IntOr("act_bits", 16, kBits);
  if (bits < 16) {
    Unsupported(json, "act_bits", absl::StrCat(bits), "16 (weights only)");
  }
  const std::string type = json.StringOr("data_type", "int");
  if (!absl::StartsWith(type, "int") && !absl::StartsWith(type, "rtn_int")) {
    Unsupported(json, "data_type", type, "int");
  }
}

void SettingsReader::AddRule(absl::string_view key, ModuleRules::Rule rule) {
  const absl::Status status = settings_.rules_.Add(std::move(rule));
  if (!status.ok()) json_.Fail(key, status.message());
}

// GPTQModel's "dynamic": {"-:pattern": {}, "+:pattern": {"bits": 8}, ...}.
// AutoRound's "extra_config": {name or pattern: {"bits": 16}}.
void SettingsReader::ReadOverrides(absl::string_view key,
                                   ModuleRules::Match match) {
  ConfigReader all = json_.Object(key);
  for (const std::string& name : all.Keys()) {
    if (!json_.status().ok()) return;
    absl::string_view text = name;
    bool quantized = true;
    if (match == ModuleRules::Match::kStart) {
      quantized = !absl::ConsumePrefix(&text, "-:");
      absl::ConsumePrefix(&text, "+:");
    }
    ConfigReader json = all.Object(name);
    const ModuleForm form = ReadForm(json, settings_.common, false);
    ModuleRules::Rule rule = {std::string(text), match, std::nullopt};
    if (quantized && form.bits < 16) {
      RefuseActivations(json);
      CheckBits(json, "bits", form.bits);
      rule.form = form;
    }
    all.Adopt(json.status());
    json_.Adopt(all.status());
    AddRule(key, std::move(rule));
  }
}

// Names of modules, or parts of names, that were left alone.
void SettingsReader::ReadNotConverted(absl::string_view key) {
  for (const std::string& name : json_.StringList(key)) {
    AddRule(key, {name, ModuleRules::Match::kAnywhere, std::nullopt});
  }
}

void SettingsReader::ReadGptq() {
  settings_.layout = CodeLayout::kGptq;
  settings_.format =
      AgreedString(json_, {"checkpoint_format", "format"}, "gptq");
  if (settings_.format != "gptq" && settings_.format != "gptq_v2") {
    Unsupported(json_, "checkpoint_format", settings_.format, "gptq, gptq_v2");
  }
  if (json_.BoolOr("is_marlin_format", false)) {
    Unsupported(json_, "is_marlin_format", "true", "false");
  }
  const std::string words = json_.StringOr("pack_dtype", "int32");
  if (words != "int32") Unsupported(json_, "pack_dtype", words, "int32");
  settings_.zeros_less_one = settings_.format == "gptq";
  settings_.common = ReadForm(json_, {}, /*required=*/true);
  RefuseActivations(json_);
  CheckBits(json_, "bits", settings_.common.bits);
  json_.BoolOr("desc_act", false);  // g_idx says it; here only its type
  ReadOverrides("dynamic", ModuleRules::Match::kStart);
}

void SettingsReader::ReadAwq() {
  settings_.format =
      AgreedString(json_, {"version", "format", "checkpoint_format"}, "gemm");
  // HF's names for GEMM files that other kernels are to run.
  if (settings_.format == "exllama" || settings_.format == "ipex") {
    settings_.format = "gemm";
  }
  const std::string backend = json_.StringOr("backend", "autoawq");
  if (settings_.format != "gemm" && settings_.format != "gemv") {
    Unsupported(json_, "version", settings_.format, "gemm, gemv");
  } else if (backend == "llm-awq") {
    Unsupported(json_, "backend", backend, "autoawq");
  }
  settings_.layout =
      settings_.format == "gemv" ? CodeLayout::kAwqGemv : CodeLayout::kAwqGemm;
  // AutoAWQ's own file has other names for two fields.
  const bool autoawq = json_.Has("w_bit");
  if (autoawq) {
    if (json_.Has("bits")) json_.Fail("bits", "is given, and \"w_bit\" too");
    settings_.common.bits = static_cast<int>(json_.Int("w_bit", {1, 64}));
    settings_.common.group_size = json_.Int("q_group_size", {-1, 1 << 24});
    if (settings_.common.group_size == 0) {
      json_.Fail("q_group_size",
                 "is 0; it must be -1, for whole rows, or more");
    }
  } else {
    settings_.common = ReadForm(json_, {}, /*required=*/true);
  }
  const bool zero_point = json_.BoolOr("zero_point", true);
  if (json_.Has("zero_point") && json_.Has("sym") &&
      zero_point == settings_.common.symmetric) {
    json_.Fail("sym", "and \"zero_point\" contradict each other");
  }
  settings_.common.symmetric = !zero_point;
  RefuseActivations(json_);
  CheckBits(json_, autoawq ? "w_bit" : "bits", settings_.common.bits);
  ReadOverrides("dynamic", ModuleRules::Match::kStart);
  ReadNotConverted("modules_to_not_convert");
}

void SettingsReader::ReadAutoRound() {
  // Early versions call it "backend", and some write hyphens.
  const char* key = json_.Has("packing_format") ? "packing_format" : "backend";
  std::string packing = absl::StrReplaceAll(
      absl::AsciiStrToLower(json_.StringOr(key, "auto_round:auto_gptq")),
      {{"-", "_"}});
  if (!json_.Has(key)) {
    settings_.warnings.push_back(
        "no \"packing_format\": taken for auto_round:auto_gptq");
  }
  settings_.format = packing;
  if (packing == "auto_round:auto_awq" || packing == "auto_round:awq") {
    settings_.layout = CodeLayout::kAwqGemm;
  } else if (packing == "auto_round:auto_gptq" ||
             packing == "auto_round:gptq" ||
             packing == "auto_round:auto_gptq:exllamav2" ||
             packing == "auto_round:gptq:exllamav2") {
    settings_.layout = CodeLayout::kGptq;
    settings_.zeros_less_one = true;
  } else if (packing != "auto_round" && packing != "auto_round:gptqmodel" &&
             packing != "auto_round:exllamav2") {
    Unsupported(json_, key, packing,
                "auto_round, auto_round:auto_gptq, auto_round:gptqmodel, "
                "auto_round:auto_awq");
  }
  settings_.common = ReadForm(json_, {}, /*required=*/true);
  RefuseActivations(json_);
  CheckBits(json_, "bits", settings_.common.bits);
  ReadOverrides("extra_config", ModuleRules::Match::kAnywhere);
  ReadNotConverted("modules_to_not_convert");
}

// A name, or "re:" and an expression that matches at the start of a name.
void SettingsReader::AddTarget(absl::string_view key, absl::string_view target,
                               std::optional<ModuleForm> form) {
  const bool pattern = absl::ConsumePrefix(&target, "re:");
  AddRule(
      key,
      {std::string(target),
       pattern ? ModuleRules::Match::kStart : ModuleRules::Match::kName, form});
}

void SettingsReader::ReadConfigGroup(ConfigReader group,
                                     absl::string_view format) {
  const std::string own = group.StringOr("format", format);
  if (own != "pack-quantized") {
    Unsupported(group, "format", own, "pack-quantized");
  }
  ConfigReader weights = group.Object("weights");
  ModuleForm form;
  form.bits = static_cast<int>(weights.Int("num_bits", {1, 64}));
  form.symmetric = weights.BoolOr("symmetric", true);
  const std::string type = weights.StringOr("type", "int");
  if (type != "int") Unsupported(weights, "type", type, "int");
  CheckBits(weights, "num_bits", form.bits);
  const int64_t group_size = weights.IntOr("group_size", 0, {-1, 1 << 24});
  const std::string strategy =
      weights.StringOr("strategy", group_size > 0   ? "group"
                                   : group_size < 0 ? "channel"
                                                    : "tensor");
  form.group_size = strategy == "group" ? group_size : -1;
  if (strategy != "group" && strategy != "channel") {
    Unsupported(weights, "strategy", strategy, "group, channel");
  } else if ((strategy == "group") != (group_size > 0)) {
    weights.Fail("strategy",
                 absl::StrCat("is \"", strategy, "\", but \"group_size\" is ",
                              group_size));
  }
  group.Adopt(weights.status());
  if (group.Has("input_activations") || group.Has("output_activations")) {
    settings_.warnings.push_back(
        "activations are not rounded in the way that the settings ask for");
  }
  for (const std::string& target : group.StringList("targets")) {
    if (target == "Linear") {
      settings_.common = form;
      settings_.only_rules_ = false;
      continue;
    }
    AddTarget("targets", target, form);
  }
  if (settings_.common.bits == 0) settings_.common = form;
  json_.Adopt(group.status());
}

void SettingsReader::ReadCompressedTensors() {
  settings_.layout = CodeLayout::kCompressedTensors;
  settings_.format = json_.StringOr("format", "pack-quantized");
  const bool mixed = settings_.format == "mixed-precision";
  if (!mixed && settings_.format != "pack-quantized") {
    Unsupported(json_, "format", settings_.format, "pack-quantized");
  }
  settings_.only_rules_ = true;
  for (const char* key : {"kv_cache_scheme", "transform_config"}) {
    if (!json_.Has(key)) continue;
    if (!json_.Object(key).Keys().empty()) {
      Unsupported(json_, key, "set", "null");
    }
  }
  const std::string sparsity =
      json_.Object("sparsity_config").StringOr("format", "dense");
  if (sparsity != "dense") {
    Unsupported(json_, "sparsity_config", sparsity, "dense");
  }
  ConfigReader groups = json_.Object("config_groups");
  const std::vector<std::string> names = groups.Keys();
  if (names.empty()) json_.Fail("config_groups", "names no group");
  for (const std::string& name : names) {
    if (!json_.status().ok()) return;
    ConfigReader group = groups.Object(name);
    json_.Adopt(groups.status());
    ReadConfigGroup(std::move(group), mixed ? "" : settings_.format);
  }
  for (const std::string& name : json_.StringList("ignore")) {
    AddTarget("ignore", name, std::nullopt);
  }
}

absl::Status SettingsReader::Read() {
  // Files beside config.json, each tool's own, need not say whose they are.
  const char* implied = json_.Has("w_bit")      ? "awq"
                        : json_.Has("desc_act") ? "gptq"
                                                : "missing";
  std::string method =
      absl::AsciiStrToLower(json_.StringOr("quant_method", implied));
  if (method == "intel/auto-round" || method == "auto_round") {
    method = "auto-round";
  }
  settings_.source = json_.source();
  settings_.method = method;
  if (!json_.status().ok()) return json_.status();
  if (method == "gptq") {
    ReadGptq();
  } else if (method == "awq") {
    ReadAwq();
  } else if (method == "auto-round") {
    ReadAutoRound();
  } else if (method == "compressed-tensors") {
    ReadCompressedTensors();
  } else {
    Unsupported(json_, "quant_method", method,
                "gptq, awq, auto-round, compressed-tensors");
  }
  return json_.status();
}

absl::StatusOr<QuantizationSettings> QuantizationSettings::Read(
    ConfigReader& json) {
  QuantizationSettings settings;
  const absl::Status status = SettingsReader(json, settings).Read();
  if (!status.ok()) return status;
  return settings;
}

}  // namespace nibble
