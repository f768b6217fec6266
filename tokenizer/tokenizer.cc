#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bpe_tables.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/piece_cache.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/spec_check.h"
#include "tokenizer/token_decoder.h"
#include "tokenizer/tokenizer_spec.h"
#include "tokenizer/unicode.h"

namespace nibble {

struct Tokenizer::Impl {
  std::vector<std::string> texts;                       // by id; "" for holes
  absl::flat_hash_map<absl::string_view, int32_t> ids;  // views into texts
  std::vector<bool> special;                            // by id
  AddedTokenMatcher raw_tokens;         // match before normalization
  AddedTokenMatcher normalized_tokens;  // match after it
  Normalizer normalizer;
  PreTokenizerSpec pre_tokenizer;
  BpeTables tables;
  TokenDecoder decoder;
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

namespace {

// Positions within a word are 32 bits wide, so a longer word is cut.
constexpr size_t kMaxWord = size_t{1} << 31;

// The part of `text` before `size`, or a little less, that ends a character.
size_t CharacterBoundary(absl::string_view text, size_t size) {
  for (size_t at = size; at > size - 4; --at) {
    if ((static_cast<uint8_t>(text[at]) & 0xC0) != 0x80) return at;
  }
  return size;
}

// One call of Encode.
class Encoding {
 public:
  Encoding(const PreTokenizerSpec& pre_tokenizer, const BpeTables& tables,
           size_t text_size)
      : pre_tokenizer_(pre_tokenizer), bpe_(tables), cache_(text_size) {
    // Tokens of text average four bytes.
    ids_.reserve(text_size / 4 + 8);
  }

  std::vector<int32_t>& ids() { return ids_; }

  // Encodes normalized text that holds no added tokens.
  void AppendText(absl::string_view text, bool first) {
    std::string buffer;
    if (pre_tokenizer_.replace_spaces) {
      buffer = absl::StrReplaceAll(text, {{" ", kMetaSpace}});
      const bool prepend =
          pre_tokenizer_.prepend == PrependMetaSpace::kAlways ||
          (pre_tokenizer_.prepend == PrependMetaSpace::kFirst && first);
      if (prepend && !absl::StartsWith(buffer, kMetaSpace)) {
        buffer.insert(0, kMetaSpace.data(), kMetaSpace.size());
      }
      text = buffer;
    } else if (pre_tokenizer_.add_prefix_space && text[0] != ' ') {
      buffer = absl::StrCat(" ", text);
      text = buffer;
    }
    PieceCursor cursor(pre_tokenizer_.kind, text);
    absl::string_view piece;
    while (cursor.Next(&piece)) AppendPiece(piece);
  }

 private:
  void AppendPiece(absl::string_view piece) {
    if (cache_.Lookup(piece, &ids_)) return;
    const size_t before = ids_.size();
    while (piece.size() > kMaxWord) {
      const size_t size = CharacterBoundary(piece, kMaxWord);
      bpe_.Encode(piece.substr(0, size), &ids_);
      piece.remove_prefix(size);
    }
    bpe_.Encode(piece, &ids_);
    cache_.Insert(piece, ids_.data() + before, ids_.size() - before);
  }

  const PreTokenizerSpec& pre_tokenizer_;
  BpeEncoder bpe_;
  PieceCache cache_;
  std::vector<int32_t> ids_;
};

// Splits the added tokens into those that match raw and normalized text.  The
// latter are sought in the form that the normalizer gives them.
void SortAddedTokens(const std::vector<AddedToken>& tokens,
                     const Normalizer& normalizer, std::vector<AddedToken>* raw,
                     std::vector<AddedToken>* normalized) {
  for (const AddedToken& token : tokens) {
    if (!token.normalized) {
      raw->push_back(token);
      continue;
    }
    normalized->push_back(token);
    if (token.verbatim) continue;
    std::string buffer;
    normalized->back().content =
        std::string(normalizer.Apply(token.content, &buffer));
  }
}

struct TokenList {  // all by id
  std::vector<std::string> texts;
  std::vector<bool> present;
  std::vector<bool> special;
};

TokenList ListTokens(const TokenizerSpec& spec) {
  size_t size = spec.vocabulary.size();
  for (const AddedToken& token : spec.added_tokens) {
    size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  TokenList list = {std::vector<std::string>(size), std::vector<bool>(size),
                    std::vector<bool>(size)};
  for (size_t id = 0; id < spec.vocabulary.size(); ++id) {
    const TokenKind kind = spec.vocabulary[id].kind;
    list.texts[id] = spec.vocabulary[id].text;
    list.present[id] = kind != TokenKind::kHole;
    list.special[id] =
        kind == TokenKind::kControl || kind == TokenKind::kUnknown;
  }
  for (const AddedToken& token : spec.added_tokens) {
    list.texts[token.id] = token.content;
    list.present[token.id] = true;
    if (token.special) list.special[token.id] = true;
  }
  return list;
}

// Where an added token goes through the normalizer and changes ("<s>" becomes
// "▁<s>" in the tokenizer.json of Llama 2), the tokenizers library decodes it
// to the changed form, and does not know that for a special token.
TokenDecoder MakeDecoder(const DecoderSpec& spec, TokenList tokens,
                         const std::vector<AddedToken>& normalized) {
  for (const AddedToken& token : normalized) {
    if (tokens.texts[token.id] == token.content) continue;
    tokens.texts[token.id] = token.content;
    tokens.special[token.id] = false;
  }
  return TokenDecoder(spec, tokens.texts, tokens.present, tokens.special);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl)
    : impl_(std::move(impl)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(
    TokenizerSpec spec) {
  const auto in_file = [&spec](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(spec.source, ": ", status.message()));
  };
  absl::Status status = CheckSpec(spec);
  if (!status.ok()) return in_file(status);
  absl::StatusOr<BpeTables> tables = BuildBpeTables(spec);
  if (!tables.ok()) return in_file(tables.status());
  absl::StatusOr<Normalizer> normalizer =
      Normalizer::Create(std::move(spec.normalizer));
  if (!normalizer.ok()) return in_file(normalizer.status());

  std::vector<AddedToken> raw, normalized;
  SortAddedTokens(spec.added_tokens, *normalizer, &raw, &normalized);
  TokenList tokens = ListTokens(spec);
  const size_t size = tokens.texts.size();
  PreTokenizerSpec pre_tokenizer = spec.pre_tokenizer;
  if (pre_tokenizer.kind == PreTokenizerKind::kWhole && !tables->byte_level &&
      tables->meta_space_only_leads) {
    pre_tokenizer.kind = PreTokenizerKind::kMetaSpaceRun;
  }
  TokenDecoder decoder = MakeDecoder(spec.decoder, tokens, normalized);
  auto impl =
      std::make_unique<Impl>(Impl{std::move(tokens.texts),
                                  {},
                                  std::move(tokens.special),
                                  AddedTokenMatcher(std::move(raw)),
                                  AddedTokenMatcher(std::move(normalized)),
                                  *std::move(normalizer),
                                  pre_tokenizer,
                                  *std::move(tables),
                                  std::move(decoder),
                                  std::move(spec.prefix_ids),
                                  std::move(spec.suffix_ids),
                                  spec.bos_id,
                                  spec.eos_id});
  impl->ids.reserve(size);
  for (size_t id = 0; id < size; ++id) {
    if (tokens.present[id]) impl->ids.emplace(impl->texts[id], id);
  }
  // An added token takes precedence over a piece with its spelling.
  for (const AddedToken& token : spec.added_tokens) {
    impl->ids[impl->texts[token.id]] = token.id;
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text,
                                       const EncodeOptions& options) const {
  const Impl& impl = *impl_;
  Encoding encoding(impl.pre_tokenizer, impl.tables, text.size());
  std::vector<int32_t>& ids = encoding.ids();
  if (options.add_special_tokens) {
    ids.insert(ids.end(), impl.prefix_ids.begin(), impl.prefix_ids.end());
  }
  std::string buffer;
  const auto append_raw = [&](absl::string_view raw, int32_t raw_id) {
    if (raw_id >= 0) {
      ids.push_back(raw_id);
      return;
    }
    const bool first = raw.data() == text.data();
    const absl::string_view normal = impl.normalizer.Apply(raw, &buffer);
    impl.normalized_tokens.Split(
        normal, options.parse_special, [&](absl::string_view part, int32_t id) {
          if (id >= 0) {
            ids.push_back(id);
          } else {
            encoding.AppendText(part, first && part.data() == normal.data());
          }
        });
  };
  impl.raw_tokens.Split(text, options.parse_special, append_raw);
  if (options.add_special_tokens) {
    ids.insert(ids.end(), impl.suffix_ids.begin(), impl.suffix_ids.end());
  }
  return std::move(ids);
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids,
                              bool skip_special_tokens) const {
  return impl_->decoder.Decode(ids, skip_special_tokens);
}

int64_t Tokenizer::vocabulary_size() const {
  return static_cast<int64_t>(impl_->texts.size());
}

absl::string_view Tokenizer::TokenText(int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return "";
  return impl_->texts[id];
}

std::optional<int32_t> Tokenizer::TokenId(absl::string_view token) const {
  const auto it = impl_->ids.find(token);
  if (it == impl_->ids.end()) return std::nullopt;
  return it->second;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocabulary_size() && impl_->special[id];
}

std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos_id; }

const TokenDecoder& Tokenizer::decoder() const { return impl_->decoder; }

bool Tokenizer::adds_bos() const {
  return impl_->bos_id.has_value() && !impl_->prefix_ids.empty() &&
         impl_->prefix_ids.front() == *impl_->bos_id;
}

}  // namespace nibble
