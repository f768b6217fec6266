#include "tokenizer/token_decoder.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8_assembler.h"

namespace nibble {
namespace {

// The byte that "<0xNN>" names, or -1.
int FallbackByte(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>' ||
      !absl::ascii_isxdigit(token[3]) || !absl::ascii_isxdigit(token[4])) {
    return -1;
  }
  int byte = -1;
  return absl::SimpleHexAtoi(token.substr(3, 2), &byte) ? byte : -1;
}

// Appends a run of <0xNN> tokens: all of it, or where it is not valid UTF-8 a
// U+FFFD for each byte.
void AppendRun(std::string* run, std::string* out) {
  if (IsValidUtf8(*run)) {
    out->append(*run);
  } else {
    for (size_t i = 0; i < run->size(); ++i) {
      AppendUtf8(kReplacementCharacter, out);
    }
  }
  run->clear();
}

}  // namespace

TokenDecoder::TokenDecoder(const DecoderSpec& spec,
                           const std::vector<std::string>& texts,
                           const std::vector<bool>& present,
                           const std::vector<bool>& special)
    : spec_(spec), pieces_(texts.size()) {
  for (size_t id = 0; id < texts.size(); ++id) {
    Piece& piece = pieces_[id];
    piece.is_present = present[id];
    piece.is_special = special[id];
    piece.text = texts[id];
    if (spec.byte_level) {
      // A token with other characters, such as a run of spaces, is itself.
      std::optional<std::string> bytes = SpelledBytes(texts[id]);
      if (bytes.has_value()) piece.text = *std::move(bytes);
      continue;
    }
    const int byte = spec.byte_fallback ? FallbackByte(texts[id]) : -1;
    if (byte >= 0) {
      piece.text = std::string(1, static_cast<char>(byte));
      piece.is_byte = true;
    } else if (spec.replace_meta_space) {
      piece.text = absl::StrReplaceAll(texts[id], {{kMetaSpace, " "}});
    }
  }
}

const TokenDecoder::Piece* TokenDecoder::Find(int32_t id,
                                              bool skip_special) const {
  if (id < 0 || static_cast<size_t>(id) >= pieces_.size()) return nullptr;
  const Piece& piece = pieces_[id];
  if (!piece.is_present || (skip_special && piece.is_special)) return nullptr;
  return &piece;
}

std::string TokenDecoder::TextAt(const Piece& piece, int64_t index) const {
  if (spec_.join_with_space && index > 0) return " " + piece.text;
  if (spec_.drop_meta_space_of_first_token && index == 0) {
    return absl::StrReplaceAll(piece.text, {{" ", ""}});
  }
  return piece.text;
}

std::string TokenDecoder::Decode(absl::Span<const int32_t> ids,
                                 bool skip_special) const {
  std::string out;
  // Tokens of text average four bytes.
  out.reserve(ids.size() * 4);
  std::string run;  // of <0xNN> tokens
  int64_t index = 0;
  for (const int32_t id : ids) {
    const Piece* const piece = Find(id, skip_special);
    if (piece == nullptr) continue;
    if (piece->is_byte) {
      run += piece->text;
    } else {
      if (!run.empty()) AppendRun(&run, &out);
      if (spec_.join_with_space || spec_.drop_meta_space_of_first_token) {
        out += TextAt(*piece, index);
      } else {
        out += piece->text;
      }
    }
    ++index;
  }
  AppendRun(&run, &out);
  if (spec_.byte_level) {
    std::string text;
    text.reserve(out.size());
    Utf8Assembler assembler(Utf8Assembler::Damage::kOncePerSequence);
    assembler.Append(out, &text);
    assembler.Flush(&text);
    return text;
  }
  size_t spaces = 0;
  while (spaces < out.size() && out[spaces] == ' ' &&
         spaces < static_cast<size_t>(spec_.strip_left)) {
    ++spaces;
  }
  return out.erase(0, spaces);
}

}  // namespace nibble
