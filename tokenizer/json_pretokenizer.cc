// ReadPreTokenizer of json_components.h: recognises the compositions that
// pretokenizer.h implements.

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tokenizer/json_components.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|)"
    R"(\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kThreeDigitsRegex = "[0-9][0-9][0-9]";

// A component in one word, with the options that change what it does.
// Sets `spec` where an option is kept there.
absl::StatusOr<std::string> Describe(const Json& component,
                                     TokenizerSpec* spec) {
  JsonFields fields(component, "pre_tokenizer");
  const std::string type = ComponentType(component);
  std::string name = type;
  if (type == "ByteLevel") {
    spec->pre_tokenizer.add_prefix_space =
        fields.Bool("add_prefix_space", true);
    if (!fields.Bool("use_regex", true)) name = "ByteLevel(no regex)";
  } else if (type == "Digits") {
    if (fields.Bool("individual_digits", false)) name = "Digits(individual)";
  } else if (type == "Punctuation") {
    absl::StrAppend(&name, "(", fields.String("behavior", "Isolated"), ")");
  } else if (type == "Metaspace") {
    const std::string scheme = fields.String(
        "prepend_scheme",
        fields.Bool("add_prefix_space", true) ? "always" : "never");
    if (!fields.Bool("split", true)) name = "Metaspace(no split)";
    spec->pre_tokenizer.prepend = scheme == "always" ? PrependMetaSpace::kAlways
                                  : scheme == "first"
                                      ? PrependMetaSpace::kFirst
                                      : PrependMetaSpace::kNever;
    if (fields.String("replacement", kMetaSpace) != kMetaSpace ||
        (scheme != "always" && scheme != "first" && scheme != "never")) {
      name = component.dump();
    }
  } else if (type == "Split") {
    const Json& pattern = fields.Find("pattern");
    std::string regex = pattern.dump();
    if (pattern.is_object() && pattern.contains("Regex") &&
        pattern["Regex"].is_string()) {
      regex = pattern["Regex"].get<std::string>();
    }
    const std::string behavior = fields.String("behavior", "");
    const bool invert = fields.Bool("invert", false);
    // Both keep every match, and these expressions match all there is.
    const bool keeps = (behavior == "Isolated" && !invert) ||
                       (behavior == "Removed" && invert);
    if (regex == kThreeDigitsRegex && behavior == "Isolated" && !invert) {
      name = "Split(three digits)";
    } else if (keeps && regex == kGpt2Regex) {
      name = "Split(GPT-2)";
    } else if (keeps && regex == kLlama3Regex) {
      name = "Split(Llama 3)";
    } else if (keeps && regex == kQwen2Regex) {
      name = "Split(Qwen2)";
    } else {
      name = absl::StrCat("Split(", regex, ", ", behavior,
                          invert ? ", inverted)" : ")");
    }
  }
  if (!fields.status().ok()) return fields.status();
  return name;
}

struct Composition {
  absl::string_view components;
  PreTokenizerKind kind;
  bool byte_level;
};

constexpr Composition kCompositions[] = {
    {"", PreTokenizerKind::kWhole, false},
    {"Metaspace", PreTokenizerKind::kMetaSpace, false},
    {"Metaspace(no split)", PreTokenizerKind::kWhole, false},
    {"ByteLevel", PreTokenizerKind::kGpt2, true},
    {"ByteLevel(no regex)", PreTokenizerKind::kWhole, true},
    {"Split(GPT-2), ByteLevel(no regex)", PreTokenizerKind::kGpt2, true},
    {"Split(Llama 3), ByteLevel(no regex)", PreTokenizerKind::kLlama3, true},
    {"Split(Qwen2), ByteLevel(no regex)", PreTokenizerKind::kQwen2, true},
    {"Digits(individual), ByteLevel", PreTokenizerKind::kDigitsGpt2, true},
    {"Punctuation(Contiguous), ByteLevel, Digits, Split(three digits)",
     PreTokenizerKind::kFalcon, true},
};

}  // namespace

absl::Status ReadPreTokenizer(const Json& json, TokenizerSpec* spec) {
  std::vector<const Json*> components;
  const absl::Status status =
      FlattenSequence(json, "pre_tokenizer", "pretokenizers", &components);
  if (!status.ok()) return status;
  std::vector<std::string> names;
  for (const Json* component : components) {
    absl::StatusOr<std::string> name = Describe(*component, spec);
    if (!name.ok()) return name.status();
    names.push_back(*std::move(name));
  }
  const std::string joined = absl::StrJoin(names, ", ");
  for (const Composition& known : kCompositions) {
    // After a first step a space in front would go before every piece.
    if (joined != known.components ||
        (spec->pre_tokenizer.add_prefix_space && names.size() > 1)) {
      continue;
    }
    spec->pre_tokenizer.kind = known.kind;
    spec->pre_tokenizer.replace_spaces =
        names.size() == 1 && ComponentType(*components[0]) == "Metaspace";
    spec->algorithm = known.byte_level ? BpeAlgorithm::kByteLevelMerges
                                       : BpeAlgorithm::kCharacterMerges;
    return absl::OkStatus();
  }
  std::string supported;
  for (const Composition& known : kCompositions) {
    if (known.components.empty()) continue;
    absl::StrAppend(&supported, supported.empty() ? "" : "; ",
                    known.components);
  }
  return absl::UnimplementedError(absl::StrCat(
      "pre_tokenizer ", absl::Utf8SafeCEscape(joined.substr(0, 400)),
      spec->pre_tokenizer.add_prefix_space ? " with add_prefix_space" : "",
      " is not supported; supported are: ", supported));
}

}  // namespace nibble
