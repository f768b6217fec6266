#include "tokenizer/gguf_export.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/gguf_pre.h"
#include "tokenizer/llama2c_vocabulary.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/scored_vocabulary.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {
namespace {

// Of tokens that no pair of pieces may merge into, as llama.cpp's converter
// gives it.
constexpr float kNoScore = -1000.0f;

// As numbered in tokenizer.ggml.token_type.
int32_t TypeNumber(TokenKind kind) {
  switch (kind) {
    case TokenKind::kNormal:
      return 1;
    case TokenKind::kUnknown:
      return 2;
    case TokenKind::kControl:
      return 3;
    case TokenKind::kUserDefined:
      return 4;
    case TokenKind::kHole:
    case TokenKind::kUnused:
      return 5;
    case TokenKind::kByte:
      return 6;
  }
  return 1;
}

absl::Status Unsupported(absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat(what, " cannot be written into a GGUF file"));
}

bool SameSteps(const NormalizerSpec& a, const NormalizerSpec& b) {
  return std::equal(
      a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(),
      [](const NormalizerStep& x, const NormalizerStep& y) {
        return x.kind == y.kind && x.from == y.from && x.to == y.to;
      });
}

// The spec to export. A SentencePiece vocabulary in tokenizer.json lacks the
// scores; those of tokenizer.model count then, with the tokens that only the
// former adds.
absl::StatusOr<TokenizerSpec> ReadSpec(const TokenizerFiles& files) {
  const auto name = [&files](absl::string_view file) {
    return absl::StrCat(files.source, "/", file);
  };
  std::vector<AddedToken> added;
  if (files.tokenizer_json.has_value()) {
    absl::StatusOr<TokenizerSpec> spec =
        ParseTokenizerJson(*files.tokenizer_json, name("tokenizer.json"));
    if (!spec.ok() || spec->algorithm == BpeAlgorithm::kByteLevelMerges) {
      return spec;
    }
    if (!files.tokenizer_model.has_value()) {
      return absl::UnimplementedError(absl::StrCat(
          name("tokenizer.json"),
          ": holds SentencePiece's tokens without their scores, which a GGUF "
          "file needs; put the tokenizer.model it was made from beside it"));
    }
    added = std::move(spec->added_tokens);
  }
  if (files.tokenizer_model.has_value()) {
    absl::StatusOr<TokenizerSpec> spec = ParseSentencePieceModel(
        *files.tokenizer_model, name("tokenizer.model"));
    if (!spec.ok()) return spec;
    for (AddedToken& token : added) {
      if (token.id >= static_cast<int64_t>(spec->vocabulary.size())) {
        spec->added_tokens.push_back(std::move(token));
      }
    }
    return spec;
  }
  if (files.tokenizer_bin.has_value()) {
    return ParseLlama2cVocabulary(*files.tokenizer_bin, name("tokenizer.bin"));
  }
  return absl::NotFoundError(absl::StrCat(
      files.source, " has neither tokenizer.json nor tokenizer.model"));
}

absl::Status AddTokens(const TokenizerSpec& spec, int64_t vocabulary,
                       GgufVocabulary* v) {
  std::vector<VocabularyEntry> entries = spec.vocabulary;
  for (const AddedToken& token : spec.added_tokens) {
    if (!token.special && (token.single_word || token.lstrip || token.rstrip)) {
      return Unsupported(
          absl::StrCat("the added token \"",
                       absl::Utf8SafeCEscape(token.content.substr(0, 64)),
                       "\" with single_word, lstrip or rstrip"));
    }
    const size_t id = static_cast<size_t>(token.id);
    if (id >= entries.size()) entries.resize(id + 1);
    entries[id].text = token.content;
    if (entries[id].kind == TokenKind::kHole) entries[id].score = kNoScore;
    if (entries[id].kind == TokenKind::kHole ||
        entries[id].kind == TokenKind::kNormal) {
      entries[id].kind =
          token.special ? TokenKind::kControl : TokenKind::kUserDefined;
    }
  }
  if (static_cast<int64_t>(entries.size()) > vocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", entries.size(), " tokens, more than the ",
                     vocabulary, " that the model has embeddings for"));
  }
  entries.resize(static_cast<size_t>(vocabulary));
  for (size_t id = 0; id < entries.size(); ++id) {
    VocabularyEntry& entry = entries[id];
    if (entry.kind == TokenKind::kHole) {
      entry = {absl::StrCat("[PAD", id, "]"), TokenKind::kUnused, kNoScore};
    }
    v->token_types.push_back(TypeNumber(entry.kind));
    if (v->model == "llama") v->scores.push_back(entry.score);
    v->tokens.push_back(std::move(entry.text));
  }
  return absl::OkStatus();
}

absl::Status SetUpScores(const TokenizerSpec& spec, GgufVocabulary* v) {
  const bool prefix =
      !spec.normalizer.steps.empty() &&
      spec.normalizer.steps[0].kind == NormalizerStep::Kind::kPrepend;
  if (!SameSteps(spec.normalizer, MetaSpaceNormalizer(prefix))) {
    return Unsupported(
        "a SentencePiece normalizer with a character map or "
        "remove_extra_whitespaces");
  }
  v->add_space_prefix = prefix;
  v->unknown_id = spec.unknown_id;
  return absl::OkStatus();
}

absl::Status SetUpMerges(const TokenizerSpec& spec, GgufVocabulary* v) {
  const bool nfc =
      SameSteps(spec.normalizer, {{{NormalizerStep::Kind::kNfc, "", ""}}, {}});
  if (!nfc && !spec.normalizer.steps.empty()) {
    return Unsupported("a normalizer other than NFC");
  }
  for (const GgufPre& pre : kGgufPres) {
    if (pre.kind == spec.pre_tokenizer.kind && pre.nfc == nfc &&
        pre.ignore_merges == spec.ignore_merges) {
      v->pre = std::string(pre.name);
    }
  }
  if (v->pre.empty()) {
    return Unsupported(absl::StrCat(
        "this pre-tokenizer ", nfc ? "with" : "without", " NFC and ",
        spec.ignore_merges ? "with" : "without", " ignore_merges"));
  }
  if (spec.pre_tokenizer.add_prefix_space) v->add_space_prefix = true;
  v->merges.reserve(spec.merges.size());
  for (const MergeRule& merge : spec.merges) {
    v->merges.push_back(absl::StrCat(merge.left, " ", merge.right));
  }
  return absl::OkStatus();
}

// Whether `ids` are the one token `id`; an error when they are others.
absl::StatusOr<bool> Adds(const std::vector<int32_t>& ids,
                          const std::optional<int32_t>& id,
                          absl::string_view place) {
  if (ids.empty()) return false;
  if (id.has_value() && ids == std::vector<int32_t>{*id}) return true;
  return Unsupported(absl::StrCat("a template that puts other tokens ", place,
                                  " a text than the model's own"));
}

absl::StatusOr<GgufVocabulary> Convert(const TokenizerSpec& spec,
                                       int64_t vocabulary) {
  GgufVocabulary v;
  const bool scored = spec.algorithm == BpeAlgorithm::kCharacterScores;
  v.model = scored ? "llama" : "gpt2";
  absl::Status status = AddTokens(spec, vocabulary, &v);
  if (status.ok()) {
    status = scored ? SetUpScores(spec, &v) : SetUpMerges(spec, &v);
  }
  if (!status.ok()) return status;
  v.bos_id = spec.bos_id;
  v.eos_id = spec.eos_id;
  const absl::StatusOr<bool> bos =
      Adds(spec.prefix_ids, spec.bos_id, "in front of");
  if (!bos.ok()) return bos.status();
  const absl::StatusOr<bool> eos = Adds(spec.suffix_ids, spec.eos_id, "behind");
  if (!eos.ok()) return eos.status();
  v.add_bos = *bos;
  v.add_eos = *eos;
  return v;
}

}  // namespace

absl::StatusOr<GgufVocabulary> ToGgufVocabulary(const TokenizerFiles& files,
                                                int64_t vocabulary) {
  absl::StatusOr<TokenizerSpec> spec = ReadSpec(files);
  if (!spec.ok()) return spec.status();
  if (files.tokenizer_config_json.has_value()) {
    const absl::Status status = ApplyTokenizerConfig(
        *files.tokenizer_config_json,
        absl::StrCat(files.source, "/tokenizer_config.json"), &*spec);
    if (!status.ok()) return status;
  }
  absl::StatusOr<GgufVocabulary> v = Convert(*spec, vocabulary);
  if (!v.ok()) {
    return absl::Status(v.status().code(),
                        absl::StrCat(spec->source, ": ", v.status().message()));
  }
  v->source = spec->source;
  return v;
}

}  // namespace nibble
