#include "tokenizer/spec_check.h"

#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// Each place where an added token may begin can cost this many steps.
constexpr size_t kMaxAddedToken = 1024;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 64)), "\"");
}

using IdTexts = absl::flat_hash_map<int32_t, absl::string_view>;

absl::Status CheckAddedToken(const AddedToken& token, const TokenizerSpec& spec,
                             IdTexts* added) {
  if (token.id < 0 || token.id >= kMaxVocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat("added token ", Quoted(token.content), " has the id ",
                     token.id, "; ids are 0 to ", kMaxVocabulary - 1));
  }
  if (token.content.size() > kMaxAddedToken) {
    return absl::InvalidArgumentError(
        absl::StrCat("added token ", token.id, " has ", token.content.size(),
                     " bytes; at most ", kMaxAddedToken, " are supported"));
  }
  if (!IsValidUtf8(token.content)) {
    return absl::InvalidArgumentError(absl::StrCat("added token ", token.id,
                                                   " ", Quoted(token.content),
                                                   " is not valid UTF-8"));
  }
  absl::string_view other = token.content;
  if (static_cast<size_t>(token.id) < spec.vocabulary.size() &&
      spec.vocabulary[token.id].kind != TokenKind::kHole) {
    other = spec.vocabulary[token.id].text;
  }
  const auto [it, is_new] = added->emplace(token.id, token.content);
  if (!is_new) other = it->second;
  if (other != token.content) {
    return absl::InvalidArgumentError(
        absl::StrCat("id ", token.id, " belongs to both ", Quoted(other),
                     " and ", Quoted(token.content)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSpec(const TokenizerSpec& spec) {
  if (spec.vocabulary.empty()) {
    return absl::InvalidArgumentError("the vocabulary is empty");
  }
  if (spec.vocabulary.size() > static_cast<size_t>(kMaxVocabulary)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has ", spec.vocabulary.size(),
                     " tokens; at most ", kMaxVocabulary, " are supported"));
  }
  IdTexts added;
  for (const AddedToken& token : spec.added_tokens) {
    const absl::Status status = CheckAddedToken(token, spec, &added);
    if (!status.ok()) return status;
  }
  const auto check_exists = [&](absl::string_view role,
                                int32_t id) -> absl::Status {
    const bool known =
        id >= 0 && ((static_cast<size_t>(id) < spec.vocabulary.size() &&
                     spec.vocabulary[id].kind != TokenKind::kHole) ||
                    added.contains(id));
    if (known) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "the ", role, " token has the id ", id, ", which the vocabulary of ",
        spec.vocabulary.size(), " tokens lacks"));
  };
  absl::Status status;
  if (spec.unknown_id.has_value()) {
    status.Update(check_exists("unknown", *spec.unknown_id));
  }
  if (spec.bos_id.has_value()) status.Update(check_exists("BOS", *spec.bos_id));
  if (spec.eos_id.has_value()) status.Update(check_exists("EOS", *spec.eos_id));
  for (const int32_t id : spec.prefix_ids) {
    status.Update(check_exists("leading special", id));
  }
  for (const int32_t id : spec.suffix_ids) {
    status.Update(check_exists("trailing special", id));
  }
  return status;
}

}  // namespace nibble
