#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tokenizer/json_components.h"
#include "tokenizer/json_document.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/spec_check.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

absl::Status ReadVocabulary(JsonDocument* document, TokenizerSpec* spec) {
  int64_t highest = -1;
  for (const auto& [text, id] : document->vocabulary) {
    if (id < 0 || id >= kMaxVocabulary) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model.vocab[\"", absl::Utf8SafeCEscape(text.substr(0, 64)),
          "\"] has the id ", id, "; ids are 0 to ", kMaxVocabulary - 1));
    }
    highest = std::max(highest, id);
  }
  spec->vocabulary.resize(highest + 1);
  for (auto& [text, id] : document->vocabulary) {
    VocabularyEntry& entry = spec->vocabulary[id];
    if (entry.kind != TokenKind::kHole) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model.vocab gives the id ", id, " to both \"",
          absl::Utf8SafeCEscape(entry.text.substr(0, 64)), "\" and \"",
          absl::Utf8SafeCEscape(text.substr(0, 64)), "\""));
    }
    entry.text = std::move(text);
    entry.kind = TokenKind::kNormal;
  }
  return absl::OkStatus();
}

absl::Status ReadModel(JsonDocument* document, TokenizerSpec* spec) {
  const Json& model = document->root["model"];
  JsonFields fields(model, "model");
  if (!fields.status().ok()) return fields.status();
  // Files of before 2021 do not say; those with merges are BPE.
  const std::string type =
      fields.String("type", model.contains("merges") ? "BPE" : "(none)");
  if (type != "BPE") {
    return absl::UnimplementedError(absl::StrCat(
        "model.type ", type, " is not supported; supported is BPE"));
  }
  if (!fields.Find("vocab").is_object() || !fields.Find("merges").is_array()) {
    return absl::InvalidArgumentError(
        "model.vocab must be an object and model.merges an array");
  }
  const Json& dropout = fields.Find("dropout");
  if (!dropout.is_null() && dropout != Json(0.0)) {
    return absl::UnimplementedError(
        "model.dropout is set: encoding would be random; make it null");
  }
  for (const char* affix :
       {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.String(affix, "").empty()) {
      return absl::UnimplementedError(
          absl::StrCat("model.", affix, " is not supported; it must be empty"));
    }
  }
  spec->byte_fallback = fields.Bool("byte_fallback", false);
  spec->fuse_unknown = fields.Bool("fuse_unk", false);
  spec->ignore_merges = fields.Bool("ignore_merges", false);
  const std::string unknown = fields.String("unk_token", "");
  absl::Status status = fields.status();
  if (!status.ok()) return status;
  status = ReadVocabulary(document, spec);
  if (!status.ok()) return status;
  spec->merges = std::move(document->merges);
  if (unknown.empty()) return absl::OkStatus();
  for (size_t id = 0; id < spec->vocabulary.size(); ++id) {
    if (spec->vocabulary[id].kind == TokenKind::kNormal &&
        spec->vocabulary[id].text == unknown) {
      spec->unknown_id = static_cast<int32_t>(id);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "model.unk_token \"", absl::Utf8SafeCEscape(unknown.substr(0, 64)),
      "\" is not in model.vocab"));
}

absl::Status ReadAddedTokens(const Json& json, TokenizerSpec* spec) {
  if (json.is_null()) return absl::OkStatus();
  if (!json.is_array()) {
    return absl::InvalidArgumentError("added_tokens is not an array");
  }
  for (const Json& item : json) {
    JsonFields fields(
        item, absl::StrCat("added_tokens[", spec->added_tokens.size(), "]"));
    AddedToken token;
    token.id = fields.RequiredInt("id");
    token.content = fields.RequiredString("content");
    token.single_word = fields.Bool("single_word", false);
    token.lstrip = fields.Bool("lstrip", false);
    token.rstrip = fields.Bool("rstrip", false);
    token.normalized = fields.Bool("normalized", false);
    token.special = fields.Bool("special", false);
    if (!fields.status().ok()) return fields.status();
    spec->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status Read(absl::string_view bytes, TokenizerSpec* spec) {
  absl::StatusOr<JsonDocument> document = ParseJsonDocument(bytes);
  if (!document.ok()) return document.status();
  Json& root = document->root;
  absl::Status status = ReadModel(&*document, spec);
  if (status.ok()) status = ReadAddedTokens(root["added_tokens"], spec);
  if (status.ok()) status = ReadNormalizer(root["normalizer"], spec);
  if (status.ok()) status = ReadPreTokenizer(root["pre_tokenizer"], spec);
  if (status.ok()) status = ReadDecoder(root["decoder"], spec);
  if (status.ok()) status = ReadPostProcessor(root["post_processor"], spec);
  return status;
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view bytes,
                                                 const std::string& source) {
  TokenizerSpec spec;
  spec.source = source;
  const absl::Status status = Read(bytes, &spec);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(source, ": ", status.message()));
  }
  return spec;
}

}  // namespace nibble
