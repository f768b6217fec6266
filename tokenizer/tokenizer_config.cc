#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tokenizer/json_document.h"
#include "tokenizer/json_fields.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

std::optional<int32_t> FindToken(const TokenizerSpec& spec,
                                 absl::string_view text) {
  for (const AddedToken& token : spec.added_tokens) {
    if (token.content == text) return token.id;
  }
  for (size_t id = 0; id < spec.vocabulary.size(); ++id) {
    const VocabularyEntry& entry = spec.vocabulary[id];
    if (entry.kind != TokenKind::kHole && entry.text == text) {
      return static_cast<int32_t>(id);
    }
  }
  return std::nullopt;
}

// Reads one token and whether to add it; `ids` are those at its end of a text.
absl::Status ApplyToken(const Json& config, const std::string& name,
                        const TokenizerSpec& spec, std::optional<int32_t>* id,
                        std::vector<int32_t>* ids) {
  JsonFields fields(config, "the configuration");
  const std::string key = name + "_token";
  const Json* token = &fields.Find(key);
  std::string text;
  if (token->is_object()) {
    JsonFields inner(*token, key);
    text = inner.RequiredString("content");
    if (!inner.status().ok()) return inner.status();
  } else {
    text = fields.String(key, "");
  }
  const bool was_added = id->has_value() && std::find(ids->begin(), ids->end(),
                                                      **id) != ids->end();
  const bool add = fields.Bool("add_" + key, was_added);
  if (!fields.status().ok()) return fields.status();
  const std::optional<int32_t> before = *id;
  if (!text.empty()) {
    const std::optional<int32_t> found = FindToken(spec, text);
    if (found.has_value()) *id = found;
    if (!found.has_value() && add) {
      return absl::InvalidArgumentError(
          absl::StrCat(key, " \"", absl::Utf8SafeCEscape(text.substr(0, 64)),
                       "\" is not in the vocabulary"));
    }
  }
  if (fields.Find("add_" + key).is_null()) return absl::OkStatus();
  if (before.has_value()) {
    ids->erase(std::remove(ids->begin(), ids->end(), *before), ids->end());
  }
  if (!add) return absl::OkStatus();
  if (!id->has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("add_", key, " is set, but there is no ", key));
  }
  ids->insert(name == "bos" ? ids->begin() : ids->end(), **id);
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyTokenizerConfig(absl::string_view bytes,
                                  const std::string& source,
                                  TokenizerSpec* spec) {
  absl::StatusOr<JsonDocument> document = ParseJsonDocument(bytes);
  absl::Status status = document.status();
  if (status.ok()) {
    status = ApplyToken(document->root, "bos", *spec, &spec->bos_id,
                        &spec->prefix_ids);
  }
  if (status.ok()) {
    status = ApplyToken(document->root, "eos", *spec, &spec->eos_id,
                        &spec->suffix_ids);
  }
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(source, ": ", status.message()));
}

}  // namespace nibble
