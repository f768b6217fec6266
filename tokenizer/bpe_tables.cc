#include "tokenizer/bpe_tables.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// Every split of a scored piece is tried, so its length bounds the work.
// Trainers stop at 16 characters unless told otherwise.
constexpr size_t kMaxScoredPiece = 512;

std::string Quoted(absl::string_view token) {
  // A token of a hostile file may be megabytes long.
  constexpr size_t kShown = 64;
  return absl::StrCat("\"", absl::Utf8SafeCEscape(token.substr(0, kShown)),
                      token.size() > kShown ? "...\"" : "\"");
}

class Builder {
 public:
  explicit Builder(const TokenizerSpec& spec) : spec_(spec) {}

  absl::StatusOr<BpeTables> Build() {
    tables_.vocabulary_size = static_cast<int32_t>(spec_.vocabulary.size());
    tables_.byte_level = spec_.algorithm == BpeAlgorithm::kByteLevelMerges;
    tables_.unknown_id = spec_.unknown_id.value_or(-1);
    tables_.byte_symbols.fill(-1);
    tables_.ascii_symbols.fill(-1);
    absl::Status status = IndexTokens();
    if (!status.ok()) return status;
    tables_.fuse_unknown = spec_.fuse_unknown;
    if (tables_.byte_level) {
      FindByteSymbols();
    } else {
      FindCharacterSymbols();
      if (spec_.byte_fallback) FindFallbackBytes();
    }
    status = spec_.algorithm == BpeAlgorithm::kCharacterScores ? AddScores()
                                                               : AddMerges();
    if (!status.ok()) return status;
    if (spec_.ignore_merges) FindWholeWords();
    // An unknown U+2581 could be fused with what stands before it.
    const auto meta_space = tables_.char_symbols.find(kMetaSpaceCode);
    tables_.meta_space_only_leads =
        only_leads_ && meta_space != tables_.char_symbols.end() &&
        meta_space->second < tables_.vocabulary_size;
    return std::move(tables_);
  }

 private:
  bool Mergeable(const VocabularyEntry& entry) const {
    if (spec_.algorithm != BpeAlgorithm::kCharacterScores) {
      return entry.kind != TokenKind::kHole;
    }
    return entry.kind == TokenKind::kNormal ||
           entry.kind == TokenKind::kUserDefined ||
           entry.kind == TokenKind::kUnused;
  }

  absl::Status IndexTokens() {
    ids_.reserve(spec_.vocabulary.size());
    for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
      const VocabularyEntry& entry = spec_.vocabulary[id];
      if (!IsValidUtf8(entry.text)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "token ", id, " ", Quoted(entry.text), " is not valid UTF-8"));
      }
      if (!Mergeable(entry)) continue;
      const auto [it, added] =
          ids_.emplace(entry.text, static_cast<int32_t>(id));
      if (!added) {
        return absl::InvalidArgumentError(
            absl::StrCat("tokens ", it->second, " and ", id,
                         " are both spelled ", Quoted(entry.text)));
      }
    }
    return absl::OkStatus();
  }

  void FindByteSymbols() {
    for (int byte = 0; byte < 256; ++byte) {
      const auto it = ids_.find(SpellByte(static_cast<uint8_t>(byte)));
      if (it != ids_.end()) tables_.byte_symbols[byte] = it->second;
    }
  }

  void SetCharSymbol(uint32_t code, int32_t symbol) {
    if (code < 128) {
      tables_.ascii_symbols[code] = symbol;
    } else {
      tables_.char_symbols[code] = symbol;
    }
  }

  void FindCharacterSymbols() {
    for (const auto& [text, id] : ids_) {
      if (text.empty()) continue;
      const DecodedChar c = DecodeUtf8(text.data(), text.data() + text.size());
      if (c.size == text.size()) SetCharSymbol(c.code, id);
    }
  }

  void FindFallbackBytes() {
    absl::flat_hash_map<std::string, int> names;
    for (int byte = 0; byte < 256; ++byte) {
      names[absl::StrFormat("<0x%02X>", byte)] = byte;
    }
    for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
      const auto it = names.find(spec_.vocabulary[id].text);
      if (it == names.end()) continue;
      tables_.byte_symbols[it->second] = static_cast<int32_t>(id);
    }
  }

  absl::Status AddMerges() {
    tables_.merges.Reset(spec_.merges.size());
    std::string joined;
    for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
      const MergeRule& merge = spec_.merges[rank];
      joined.assign(merge.left).append(merge.right);
      const absl::string_view parts[] = {merge.left, merge.right, joined};
      int32_t ids[3];
      for (int i = 0; i < 3; ++i) {
        const auto it = ids_.find(parts[i]);
        if (it == ids_.end() || parts[i].empty()) {
          return absl::InvalidArgumentError(
              absl::StrCat("merge ", rank, " (", Quoted(merge.left), " and ",
                           Quoted(merge.right), ") needs the token ",
                           Quoted(parts[i]), ", which the vocabulary lacks"));
        }
        ids[i] = it->second;
      }
      tables_.merges.Insert(ids[0], ids[1],
                            Merge{static_cast<uint32_t>(rank), ids[2]});
      NoteMetaSpaces(joined);
    }
    return absl::OkStatus();
  }

  // The symbol that is spelled `part`, or -1.
  int32_t SymbolOf(absl::string_view part) {
    const auto it = ids_.find(part);
    if (it != ids_.end()) return it->second;
    const DecodedChar c = DecodeUtf8(part.data(), part.data() + part.size());
    if (c.size < part.size()) return -1;
    const int32_t known =
        c.code < 128
            ? tables_.ascii_symbols[c.code]
            : tables_.char_symbols.try_emplace(c.code, -1).first->second;
    if (known >= 0) return known;
    const int32_t symbol =
        tables_.vocabulary_size +
        static_cast<int32_t>(tables_.provisional_text.size());
    tables_.provisional_text.emplace_back(part);
    SetCharSymbol(c.code, symbol);
    return symbol;
  }

  absl::Status RankScores(std::vector<uint32_t>* ranks) {
    std::vector<float> scores;
    for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
      const VocabularyEntry& entry = spec_.vocabulary[id];
      if (!Mergeable(entry)) continue;
      if (std::isnan(entry.score)) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", id, "'s score is not a number"));
      }
      if (entry.text.empty() || entry.text.size() > kMaxScoredPiece) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", id, " has ", entry.text.size(),
                         " bytes; pieces have 1 to ", kMaxScoredPiece));
      }
      scores.push_back(entry.score);
    }
    std::sort(scores.begin(), scores.end(), std::greater<float>());
    scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
    ranks->assign(spec_.vocabulary.size(), kNoMerge);
    for (size_t id = 0; id < ranks->size(); ++id) {
      const VocabularyEntry& entry = spec_.vocabulary[id];
      if (!Mergeable(entry)) continue;
      (*ranks)[id] = static_cast<uint32_t>(
          std::lower_bound(scores.begin(), scores.end(), entry.score,
                           std::greater<float>()) -
          scores.begin());
    }
    return absl::OkStatus();
  }

  // A piece of n characters merges from any of its n - 1 splits.
  absl::Status AddScores() {
    std::vector<uint32_t> ranks;
    const absl::Status status = RankScores(&ranks);
    if (!status.ok()) return status;
    struct Pair {
      int32_t left, right;
      Merge merge;
    };
    std::vector<Pair> pairs;
    for (size_t id = 0; id < spec_.vocabulary.size(); ++id) {
      const VocabularyEntry& entry = spec_.vocabulary[id];
      if (!Mergeable(entry)) continue;
      if (entry.kind == TokenKind::kUnused) {
        tables_.unused.resize(spec_.vocabulary.size());
        tables_.unused[id] = true;
      }
      const absl::string_view text = entry.text;
      for (size_t cut = 1; cut < text.size(); ++cut) {
        if ((static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) continue;
        const int32_t left = SymbolOf(text.substr(0, cut));
        const int32_t right = left < 0 ? -1 : SymbolOf(text.substr(cut));
        if (right < 0) continue;
        pairs.push_back(
            {left, right, Merge{ranks[id], static_cast<int32_t>(id)}});
        NoteMetaSpaces(text);
      }
    }
    tables_.merges.Reset(pairs.size());
    for (const Pair& pair : pairs) {
      tables_.merges.Insert(pair.left, pair.right, pair.merge);
    }
    return absl::OkStatus();
  }

  void NoteMetaSpaces(absl::string_view merged) {
    size_t at = 0;
    while (only_leads_ &&
           (at = merged.find(kMetaSpace, at)) != absl::string_view::npos) {
      only_leads_ = at == 0 || absl::EndsWith(merged.substr(0, at), kMetaSpace);
      at += kMetaSpace.size();
    }
  }

  void FindWholeWords() {
    for (const auto& [text, id] : ids_) {
      if (!tables_.byte_level) {
        tables_.whole_words.emplace(text, id);
      } else if (std::optional<std::string> bytes = SpelledBytes(text)) {
        tables_.whole_words.emplace(*std::move(bytes), id);
      }
    }
  }

  const TokenizerSpec& spec_;
  BpeTables tables_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // mergeable tokens
  bool only_leads_ = true;
};

}  // namespace

absl::StatusOr<BpeTables> BuildBpeTables(const TokenizerSpec& spec) {
  return Builder(spec).Build();
}

}  // namespace nibble
