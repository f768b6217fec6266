// What config.json says of a quantized checkpoint: the layout of its matrices,
// and the width and grouping of each.
//
//   absl::StatusOr<QuantizationSettings> settings =
//       QuantizationSettings::Read(json);
//   if (!settings.ok()) return settings.status();
//   for (const ModuleForm& form :
//   settings->FormsOf("model.layers.0.mlp.up_proj"))
//     ...
//
// The tools, and the field names, behind each "quant_method":
//
//   gptq                AutoGPTQ, GPTQModel, AutoRound: bits, group_size, sym,
//                       checkpoint_format or format, dynamic
//   awq                 AutoAWQ, GPTQModel, AutoRound: bits or w_bit,
//   group_size
//                       or q_group_size, zero_point, version
//   auto-round          AutoRound: bits, group_size, sym, packing_format,
//                       extra_config
//   compressed-tensors  llm-compressor, AutoRound: config_groups, ignore
#ifndef NIBBLE_MODELS_QUANTIZED_QUANTIZATION_SETTINGS_H_
#define NIBBLE_MODELS_QUANTIZED_QUANTIZATION_SETTINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/config_reader.h"
#include "models/quantized/module_rules.h"
#include "models/quantized/stored_codes.h"

namespace nibble {

class QuantizationSettings {
 public:
  // Unimplemented: a method, format or kind of quantization that is not
  // supported, with those that are. InvalidArgument: a field of a wrong type or
  // range, or fields that contradict each other.
  static absl::StatusOr<QuantizationSettings> Read(ConfigReader& json);

  // The forms that `module` may have, likeliest first (ModuleRules::FormsOf).
  // Empty: the settings leave it in floating point.
  std::vector<ModuleForm> FormsOf(absl::string_view module) const;

  std::string source;  // the file, for messages
  std::string method;
  std::string format;
  CodeLayout layout = CodeLayout::kGptq;
  bool zeros_less_one = false;
  ModuleForm common;
  // In config.json but of no effect on what is read.
  std::vector<std::string> warnings;

 private:
  friend class SettingsReader;

  bool only_rules_ = false;  // modules that no rule matches are left alone
  ModuleRules rules_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_QUANTIZATION_SETTINGS_H_
