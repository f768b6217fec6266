#include "tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <climits>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tokenizer/scored_vocabulary.h"
#include "tokenizer/sentencepiece_model.pb.h"

namespace nibble {
namespace {

// Llama 3's tokenizer.model is not SentencePiece's: each line is a token in
// base64, a space and its rank.
bool LooksLikeTiktoken(absl::string_view bytes) {
  const absl::string_view line = bytes.substr(0, bytes.find('\n'));
  const std::vector<absl::string_view> parts = absl::StrSplit(line, ' ');
  std::string token;
  return parts.size() == 2 && !parts[1].empty() &&
         std::all_of(parts[1].begin(), parts[1].end(), absl::ascii_isdigit) &&
         absl::Base64Unescape(parts[0], &token) && !token.empty();
}

absl::Status Unsupported(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is not supported"));
}

absl::Status CheckSettings(const sentencepiece::Model& model) {
  const sentencepiece::Trainer& trainer = model.trainer();
  if (trainer.model_type() != 2) {
    return Unsupported(absl::StrCat("trainer_spec.model_type ",
                                    trainer.model_type(),
                                    " (2, BPE, is supported; 1 is unigram)"));
  }
  if (trainer.treat_whitespace_as_suffix()) {
    return Unsupported("trainer_spec.treat_whitespace_as_suffix");
  }
  if (!model.normalizer().escape_whitespaces()) {
    return Unsupported("normalizer_spec without escape_whitespaces");
  }
  if (!model.denormalizer().precompiled_charsmap().empty()) {
    return Unsupported("a denormalizer_spec");
  }
  return absl::OkStatus();
}

absl::StatusOr<VocabularyEntry> ReadPiece(const sentencepiece::Piece& piece,
                                          int id) {
  constexpr TokenKind kKinds[] = {TokenKind::kNormal,  TokenKind::kUnknown,
                                  TokenKind::kControl, TokenKind::kUserDefined,
                                  TokenKind::kUnused,  TokenKind::kByte};
  if (piece.type() < 1 || piece.type() > 6) {
    return absl::InvalidArgumentError(absl::StrCat(
        "piece ", id, " has the type ", piece.type(), "; types are 1 to 6"));
  }
  if (piece.piece().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("piece ", id, " is empty"));
  }
  return VocabularyEntry{piece.piece(), kKinds[piece.type() - 1],
                         piece.score()};
}

// Adds the pieces and the ids of the special ones.
absl::Status ReadPieces(const sentencepiece::Model& model,
                        TokenizerSpec* spec) {
  int bytes = 0;
  for (const sentencepiece::Piece& piece : model.pieces()) {
    const int id = static_cast<int>(spec->vocabulary.size());
    absl::StatusOr<VocabularyEntry> entry = ReadPiece(piece, id);
    if (!entry.ok()) return entry.status();
    if (entry->kind == TokenKind::kByte) ++bytes;
    if (entry->kind == TokenKind::kUnknown) {
      if (spec->unknown_id.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "pieces ", *spec->unknown_id, " and ", id, " are both unknown"));
      }
      spec->unknown_id = id;
    }
    spec->vocabulary.push_back(*std::move(entry));
  }
  if (!spec->unknown_id.has_value()) {
    return absl::InvalidArgumentError("no piece has the type unknown");
  }
  if (bytes != (model.trainer().byte_fallback() ? 256 : 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", bytes, " byte pieces, but byte_fallback is ",
        model.trainer().byte_fallback() ? "set: it needs 256" : "not set"));
  }
  const sentencepiece::Trainer& trainer = model.trainer();
  if (trainer.bos_id() >= 0) spec->bos_id = trainer.bos_id();
  if (trainer.eos_id() >= 0) spec->eos_id = trainer.eos_id();
  if (spec->bos_id.has_value()) spec->prefix_ids = {*spec->bos_id};
  return absl::OkStatus();
}

absl::Status Read(absl::string_view bytes, TokenizerSpec* spec) {
  if (LooksLikeTiktoken(bytes)) {
    return absl::UnimplementedError(
        "this is a tiktoken file (as with Llama 3), not SentencePiece's; it "
        "lacks the special tokens: use the model's tokenizer.json");
  }
  sentencepiece::Model model;
  if (bytes.size() > INT_MAX ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError(
        "not a SentencePiece model: the protobuf is truncated or damaged");
  }
  absl::Status status = CheckSettings(model);
  if (status.ok()) status = ReadPieces(model, spec);
  if (!status.ok()) return status;
  const sentencepiece::Normalizer& rules = model.normalizer();
  CompleteScoredSpec(rules.add_dummy_prefix(), spec);
  if (rules.precompiled_charsmap().empty() &&
      !rules.remove_extra_whitespaces()) {
    spec->normalizer = MetaSpaceNormalizer(rules.add_dummy_prefix());
    return absl::OkStatus();
  }
  spec->normalizer.steps.push_back(
      {NormalizerStep::Kind::kSentencePiece, "", ""});
  spec->normalizer.rules = {
      rules.precompiled_charsmap(), rules.add_dummy_prefix(),
      rules.remove_extra_whitespaces(), spec->added_tokens};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseSentencePieceModel(
    absl::string_view bytes, const std::string& source) {
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
