#include "models/quantized/module_rules.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Every rule is tried on every matrix. AutoRound may list each exception of a
// model by name; 4096 are more than a model of 80 layers has matrices.
constexpr size_t kMaxRules = 4096;

// What one expression may take once it is compiled; the settings' own stay
// below 10 KB.
constexpr int64_t kMaxPatternBytes = 1 << 20;

}  // namespace

absl::Status ModuleRules::Add(Rule rule) {
  if (rules_.size() >= kMaxRules) {
    return absl::InvalidArgumentError(
        absl::StrCat("brings the rules for single modules above ", kMaxRules));
  }
  std::unique_ptr<RE2> pattern;
  if (rule.match != Match::kName) {
    RE2::Options options(RE2::Quiet);
    options.set_max_mem(kMaxPatternBytes);
    pattern = std::make_unique<RE2>(rule.text, options);
    if (!pattern->ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("holds a regular expression that cannot be read, ",
                       absl::string_view(rule.text).substr(0, 60), " (",
                       absl::string_view(pattern->error()).substr(0, 60), ")"));
    }
  }
  rules_.emplace_back(std::move(rule), std::move(pattern));
  return absl::OkStatus();
}

std::optional<std::vector<ModuleForm>> ModuleRules::FormsOf(
    absl::string_view module) const {
  bool matched = false;
  std::vector<ModuleForm> by_name, by_pattern;
  for (const auto& [rule, pattern] : rules_) {
    const bool named = rule.match != Match::kStart && rule.text == module;
    if (!named &&
        (pattern == nullptr ||
         !pattern->Match(
             module, 0, module.size(),
             rule.match == Match::kStart ? RE2::ANCHOR_START : RE2::UNANCHORED,
             nullptr, 0))) {
      continue;
    }
    matched = true;
    if (rule.form) (named ? by_name : by_pattern).push_back(*rule.form);
  }
  if (!matched) return std::nullopt;
  by_name.insert(by_name.end(), by_pattern.begin(), by_pattern.end());
  return by_name;
}

}  // namespace nibble
