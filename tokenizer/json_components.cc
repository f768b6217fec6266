#include "tokenizer/json_components.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

using Json = nlohmann::json;
using Components = std::vector<const Json*>;

// Bounds what one byte of text can become.
constexpr size_t kMaxReplacement = 16;

absl::Status Refuse(absl::string_view what, const std::string& name,
                    absl::string_view supported) {
  return absl::UnimplementedError(
      absl::StrCat(what, " ", absl::Utf8SafeCEscape(name.substr(0, 400)),
                   " is not supported; supported are ", supported));
}

// The string that a Replace component seeks: {"String": " "}.
absl::Status ReplacePattern(const Json& component, absl::string_view where,
                            std::string* pattern) {
  const auto it = component.find("pattern");
  if (it != component.end() && it->is_object()) {
    const auto text = it->find("String");
    if (text != it->end() && text->is_string()) {
      *pattern = text->get<std::string>();
      if (!pattern->empty()) return absl::OkStatus();
    }
  }
  return Refuse(
      where,
      absl::StrCat("pattern ", it == component.end() ? "(none)" : it->dump()),
      "strings that are not empty");
}

}  // namespace

absl::Status ReadNormalizer(const Json& json, TokenizerSpec* spec) {
  Components components;
  absl::Status status =
      FlattenSequence(json, "normalizer", "normalizers", &components);
  for (const Json* component : components) {
    JsonFields fields(*component, "normalizer");
    const std::string type = ComponentType(*component);
    NormalizerStep step;
    if (type == "NFC") {
      step.kind = NormalizerStep::Kind::kNfc;
    } else if (type == "Prepend") {
      step.kind = NormalizerStep::Kind::kPrepend;
      step.to = fields.RequiredString("prepend");
    } else if (type == "Replace") {
      step.kind = NormalizerStep::Kind::kReplace;
      step.to = fields.RequiredString("content");
      status.Update(
          ReplacePattern(*component, "normalizer Replace", &step.from));
    } else {
      return Refuse("normalizer", type, "NFC, Prepend, Replace and Sequence");
    }
    status.Update(fields.status());
    if (status.ok() && step.to.size() > kMaxReplacement) {
      return Refuse("normalizer",
                    absl::StrCat(type, " with ", step.to.size(), " bytes"),
                    absl::StrCat("at most ", kMaxReplacement));
    }
    spec->normalizer.steps.push_back(std::move(step));
  }
  return status;
}

absl::Status ReadDecoder(const Json& json, TokenizerSpec* spec) {
  constexpr absl::string_view kSupported =
      "ByteLevel, Metaspace, and Replace, ByteFallback, Fuse, Strip in this "
      "order";
  Components components;
  absl::Status status =
      FlattenSequence(json, "decoder", "decoders", &components);
  if (!status.ok()) return status;
  DecoderSpec& decoder = spec->decoder;
  decoder.join_with_space = components.empty();
  bool fused = false;
  // Where a component must stand: each later than those before it.
  int place = 0;
  for (const Json* component : components) {
    JsonFields fields(*component, "decoder");
    const std::string type = ComponentType(*component);
    int this_place = 0;
    if (type == "ByteLevel" && components.size() == 1) {
      this_place = 1;
      decoder.byte_level = true;
    } else if (type == "Metaspace") {
      this_place = 3;
      if (fields.String("replacement", kMetaSpace) != kMetaSpace) {
        return Refuse("decoder", component->dump(), kSupported);
      }
      decoder.replace_meta_space = true;
      decoder.drop_meta_space_of_first_token =
          fields.String("prepend_scheme", "always") != "never" &&
          fields.Bool("add_prefix_space", true);
    } else if (type == "Replace") {
      this_place = 1;
      std::string pattern;
      status.Update(ReplacePattern(*component, "decoder Replace", &pattern));
      if (pattern != kMetaSpace || fields.String("content", "") != " ") {
        return Refuse("decoder", component->dump(), kSupported);
      }
      decoder.replace_meta_space = true;
    } else if (type == "ByteFallback") {
      this_place = 2;
      decoder.byte_fallback = true;
    } else if (type == "Fuse") {
      this_place = 4;
      fused = true;
    } else if (type == "Strip" && fused) {
      this_place = 5;
      const int32_t start = fields.RequiredInt("start");
      if (fields.String("content", " ") != " " || start < 0 ||
          fields.RequiredInt("stop") != 0) {
        return Refuse("decoder", component->dump(), kSupported);
      }
      decoder.strip_left = start;
    }
    if (this_place <= place) return Refuse("decoder", type, kSupported);
    place = this_place;
    status.Update(fields.status());
  }
  return status;
}

namespace {

absl::Status ReadTemplate(const Json& json, TokenizerSpec* spec) {
  const absl::Status malformed = absl::InvalidArgumentError(
      "post_processor TemplateProcessing.single is not a list of SpecialToken "
      "and one Sequence A, or special_tokens lacks one of its tokens");
  const auto single = json.find("single");
  const auto tokens = json.find("special_tokens");
  if (single == json.end() || !single->is_array()) return malformed;
  bool after_text = false;
  for (const Json& item : *single) {
    if (!item.is_object() || item.size() != 1) return malformed;
    const Json& body = item.begin().value();
    if (!body.is_object() || !body.contains("id") || !body["id"].is_string()) {
      return malformed;
    }
    const std::string name = body["id"].get<std::string>();
    if (item.begin().key() == "Sequence") {
      if (after_text || name != "A") return malformed;
      after_text = true;
      continue;
    }
    if (item.begin().key() != "SpecialToken" || tokens == json.end() ||
        !tokens->is_object() || !tokens->contains(name)) {
      return malformed;
    }
    const Json& token = (*tokens)[name];
    if (!token.is_object() || !token.contains("ids") ||
        !token["ids"].is_array()) {
      return malformed;
    }
    for (const Json& id : token["ids"]) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
        return malformed;
      }
      (after_text ? spec->suffix_ids : spec->prefix_ids)
          .push_back(id.get<int32_t>());
    }
  }
  if (!after_text) return malformed;
  if (!spec->prefix_ids.empty()) spec->bos_id = spec->prefix_ids.front();
  if (!spec->suffix_ids.empty()) spec->eos_id = spec->suffix_ids.back();
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadPostProcessor(const Json& json, TokenizerSpec* spec) {
  Components components;
  absl::Status status =
      FlattenSequence(json, "post_processor", "processors", &components);
  bool has_template = false;
  for (const Json* component : components) {
    const std::string type = ComponentType(*component);
    if (type == "TemplateProcessing" && !has_template) {
      has_template = true;
      status.Update(ReadTemplate(*component, spec));
    } else if (type != "ByteLevel") {  // which moves offsets, not tokens
      return Refuse("post_processor", type,
                    "ByteLevel and one TemplateProcessing");
    }
  }
  return status;
}

}  // namespace nibble
