// Settings for single modules, by name or by pattern, as the configurations of
// quantized checkpoints give them beside those for all.
//
//   ModuleRules rules;
//   rules.Add({"lm_head", ModuleRules::Match::kName, std::nullopt});
//   rules.Add({".*down_proj", ModuleRules::Match::kStart, ModuleForm{8, 32}});
//   rules.FormsOf("model.layers.0.mlp.down_proj")   // {{8, 32}}
#ifndef NIBBLE_MODELS_QUANTIZED_MODULE_RULES_H_
#define NIBBLE_MODELS_QUANTIZED_MODULE_RULES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace nibble {

struct ModuleForm {
  int bits = 0;
  int64_t group_size = 0;  // -1: the whole row
  bool symmetric = true;
};

class ModuleRules {
 public:
  // How a rule's text is meant: a whole name; a regular expression at the start
  // of a name; a name or a regular expression anywhere in one.
  enum class Match { kName, kStart, kAnywhere };

  struct Rule {
    std::string text;
    Match match = Match::kName;
    std::optional<ModuleForm> form;  // nullopt: left in floating point
  };

  // InvalidArgument, with a message that begins with a verb: `text` is not a
  // regular expression, or there are too many rules. Expressions are RE2's.
  absl::Status Add(Rule rule);

  // nullopt where no rule matches. Else the forms that the matching rules give,
  // those of rules that are the very name before those of expressions; empty
  // where they say that the module is left in floating point. Several forms:
  // the settings' order, by which tools choose, is lost, as a JSON object has
  // none; the shapes of the tensors decide.
  std::optional<std::vector<ModuleForm>> FormsOf(
      absl::string_view module) const;

 private:
  // The expression is null for Match::kName.
  std::vector<std::pair<Rule, std::unique_ptr<RE2>>> rules_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_QUANTIZED_MODULE_RULES_H_
