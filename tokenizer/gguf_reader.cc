#include "tokenizer/gguf_reader.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tokenizer/gguf_pre.h"
#include "tokenizer/scored_vocabulary.h"

namespace nibble {
namespace {

constexpr int64_t kUnset = 0xFFFFFFFF;

absl::Status SetId(absl::string_view key, const std::optional<int64_t>& value,
                   std::optional<int32_t>* id) {
  if (!value.has_value() || *value == kUnset) return absl::OkStatus();
  if (*value < 0 || *value > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer.ggml.", key, " is ", *value, ", which is no token id"));
  }
  *id = static_cast<int32_t>(*value);
  return absl::OkStatus();
}

absl::Status CheckLengths(const GgufVocabulary& v) {
  const size_t tokens = v.tokens.size();
  if (!v.token_types.empty() && v.token_types.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.token_type has ", v.token_types.size(),
                     " entries, tokenizer.ggml.tokens ", tokens));
  }
  const bool scored = v.model == "llama";
  if ((scored || !v.scores.empty()) && v.scores.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.scores has ", v.scores.size(),
                     " entries, tokenizer.ggml.tokens ", tokens));
  }
  if (!scored && v.merges.empty()) {
    return absl::InvalidArgumentError("tokenizer.ggml.merges is missing");
  }
  return absl::OkStatus();
}

bool IsByteName(absl::string_view text) {
  return text.size() == 6 && absl::StartsWith(text, "<0x") && text[5] == '>' &&
         absl::ascii_isxdigit(text[3]) && absl::ascii_isxdigit(text[4]);
}

absl::Status AddTokens(const GgufVocabulary& v, TokenizerSpec* spec) {
  constexpr TokenKind kKinds[] = {TokenKind::kNormal,  TokenKind::kUnknown,
                                  TokenKind::kControl, TokenKind::kUserDefined,
                                  TokenKind::kUnused,  TokenKind::kByte};
  const bool scored = v.model == "llama";
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const int32_t type = v.token_types.empty() ? 1 : v.token_types[id];
    // 0 (undefined) is written by some converters for padding.
    if (type < 0 || type > 6) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.token_type[", id, "] is ", type,
                       "; types are 0 to 6"));
    }
    TokenKind kind = type == 0 ? TokenKind::kUnused : kKinds[type - 1];
    if (kind == TokenKind::kByte && !IsByteName(v.tokens[id])) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " \"",
                       absl::Utf8SafeCEscape(v.tokens[id].substr(0, 64)),
                       "\" has the type byte, but is not spelled <0xNN>"));
    }
    // Control tokens match text, when asked to; so do user-defined ones, which
    // among scores CompleteScoredSpec sees to.
    if (kind == TokenKind::kControl ||
        (kind == TokenKind::kUserDefined && !scored)) {
      AddedToken token;
      token.id = static_cast<int32_t>(id);
      token.content = v.tokens[id];
      token.special = kind == TokenKind::kControl;
      spec->added_tokens.push_back(std::move(token));
    }
    spec->vocabulary.push_back(
        {v.tokens[id], kind, scored ? v.scores[id] : 0.0f});
  }
  return absl::OkStatus();
}

absl::Status SetUpBytePairs(const GgufVocabulary& v, TokenizerSpec* spec,
                            bool* adds_bos) {
  const absl::string_view name =
      v.pre.empty() ? absl::string_view("default") : v.pre;
  const GgufPre* pre = nullptr;
  std::string supported;
  for (const GgufPre& known : kGgufPres) {
    if (known.name == name) pre = &known;
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", known.name);
  }
  if (pre == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.ggml.pre \"", absl::Utf8SafeCEscape(name.substr(0, 64)),
        "\" is not supported; supported are ", supported));
  }
  if (v.add_space_prefix.value_or(false)) {
    spec->pre_tokenizer.add_prefix_space = true;
    if (pre->kind != PreTokenizerKind::kGpt2) {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.ggml.add_space_prefix is not supported with ",
                       "tokenizer.ggml.pre \"", name, "\""));
    }
  }
  spec->algorithm = BpeAlgorithm::kByteLevelMerges;
  spec->pre_tokenizer.kind = pre->kind;
  if (pre->nfc) {
    spec->normalizer.steps.push_back({NormalizerStep::Kind::kNfc, "", ""});
  }
  spec->ignore_merges = pre->ignore_merges;
  spec->decoder.byte_level = true;
  *adds_bos = pre->adds_bos;
  for (size_t i = 0; i < v.merges.size(); ++i) {
    const std::string& merge = v.merges[i];
    const size_t space = merge.find(' ');
    if (space == std::string::npos ||
        merge.find(' ', space + 1) != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokenizer.ggml.merges[", i, "] is not two tokens and a space"));
    }
    spec->merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return absl::OkStatus();
}

// SentencePiece gives the unknown token the type unknown; nothing else in a
// file of type "gpt2" does, where no text needs it.
absl::Status Fill(const GgufVocabulary& v, TokenizerSpec* spec) {
  if (v.model != "llama" && v.model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.ggml.model \"", absl::Utf8SafeCEscape(v.model.substr(0, 64)),
        "\" is not supported; supported are llama and gpt2"));
  }
  absl::Status status = CheckLengths(v);
  if (status.ok()) status = AddTokens(v, spec);
  if (status.ok()) status = SetId("bos_token_id", v.bos_id, &spec->bos_id);
  if (status.ok()) status = SetId("eos_token_id", v.eos_id, &spec->eos_id);
  if (!status.ok()) return status;
  bool adds_bos = true;
  if (v.model == "llama") {
    status = SetId("unknown_token_id", v.unknown_id, &spec->unknown_id);
    const bool prefix = v.add_space_prefix.value_or(true);
    CompleteScoredSpec(prefix, spec);
    spec->normalizer = MetaSpaceNormalizer(prefix);
  } else {
    status = SetUpBytePairs(v, spec, &adds_bos);
  }
  if (v.add_bos.value_or(adds_bos) && spec->bos_id.has_value()) {
    spec->prefix_ids = {*spec->bos_id};
  }
  if (v.add_eos.value_or(false) && spec->eos_id.has_value()) {
    spec->suffix_ids = {*spec->eos_id};
  }
  return status;
}

}  // namespace

absl::StatusOr<TokenizerSpec> SpecFromGguf(const GgufVocabulary& vocabulary) {
  TokenizerSpec spec;
  spec.source = vocabulary.source;
  const absl::Status status = Fill(vocabulary, &spec);
  if (!status.ok()) {
    return absl::Status(
        status.code(), absl::StrCat(vocabulary.source, ": ", status.message()));
  }
  return spec;
}

}  // namespace nibble
