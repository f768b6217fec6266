#include "tokenizer/pretokenizer.h"

#include <cstdint>
#include <cstring>

#include "tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr uint8_t kClasses = kLetter | kNumber | kSpace;

const CharTable& Table() {
  static const CharTable& table = CharTable::Get();
  return table;
}

// Skips characters whose flags under `mask` equal `wanted`.
const char* SkipRun(const char* p, const char* end, uint8_t mask,
                    uint8_t wanted) {
  const CharTable& table = Table();
  uint32_t size;
  while (p < end && (FlagsAt(table, p, end, &size) & mask) == wanted) {
    p += size;
  }
  return p;
}

uint8_t ClassAt(const char* p, const char* end, uint32_t* size) {
  return FlagsAt(Table(), p, end, size) & kClasses;
}

// The alternatives for white space, \s+(?!\S)|\s+: a run keeps its last
// character back for the word that follows, if it has another.
const char* SpacePieceEnd(const char* p, const char* end) {
  const char* last = p;
  const char* q = p;
  uint32_t size;
  while (q < end && ClassAt(q, end, &size) == kSpace) {
    last = q;
    q += size;
  }
  return q == end || last == p ? q : last;
}

// The size of the contraction at `p` ('s 't 're 've 'm 'll 'd), or 0.
int ContractionSize(const char* p, const char* end, bool any_case) {
  if (*p != '\'' || end - p < 2) return 0;
  const auto letter = [&](int i) -> char {
    if (end - p <= i) return 0;
    const bool upper = any_case && p[i] >= 'A' && p[i] <= 'Z';
    return upper ? static_cast<char>(p[i] - 'A' + 'a') : p[i];
  };
  const char a = letter(1);
  const char b = letter(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e')) return 3;
  if (a == 'l' && b == 'l') return 3;
  // The long s, U+017F, is an s when case does not count.
  if (any_case && a == '\xC5' && b == '\xBF') return 3;
  return 0;
}

const char* Gpt2PieceEnd(const char* p, const char* end) {
  if (*p == '\'') {
    const int contraction = ContractionSize(p, end, /*any_case=*/false);
    if (contraction > 0) return p + contraction;
  }
  const char* const word = *p == ' ' && end - p > 1 ? p + 1 : p;
  uint32_t size;
  const uint8_t kind = ClassAt(word, end, &size);
  if (kind == kSpace) return SpacePieceEnd(p, end);
  return SkipRun(word + size, end, kClasses, kind);
}

// Llama 3's expression, and with max_digits = 1 Qwen2's.
const char* Llama3PieceEnd(const char* p, const char* end, int max_digits) {
  if (*p == '\'') {
    const int contraction = ContractionSize(p, end, /*any_case=*/true);
    if (contraction > 0) return p + contraction;
  }
  const auto newline = [](char c) { return c == '\r' || c == '\n'; };
  uint32_t size;
  const uint8_t first = ClassAt(p, end, &size);
  const char* const second = p + size;
  if (first == kLetter) return SkipRun(second, end, kClasses, kLetter);
  if (first == kNumber) {
    const char* q = second;
    for (int n = 1; n < max_digits && q < end; ++n) {
      if (ClassAt(q, end, &size) != kNumber) break;
      q += size;
    }
    return q;
  }
  uint8_t next = kSpace;
  if (second < end) next = ClassAt(second, end, &size);
  if (next == kLetter && !newline(*p)) {
    return SkipRun(second + size, end, kClasses, kLetter);
  }
  if (first == 0 || (*p == ' ' && second < end && next == 0)) {
    const char* q = SkipRun(second, end, kClasses, 0);
    while (q < end && newline(*q)) ++q;
    return q;
  }
  // White space: up to its last line end, or else as GPT-2 has it.
  const char* after_newline = nullptr;
  for (const char* q = p; q < end && ClassAt(q, end, &size) == kSpace;) {
    q += size;
    if (newline(q[-1])) after_newline = q;
  }
  return after_newline != nullptr ? after_newline : SpacePieceEnd(p, end);
}

const char* MetaSpacePieceEnd(const char* p, const char* end, bool runs) {
  const auto at_meta_space = [end](const char* q) {
    return end - q >= 3 && std::memcmp(q, kMetaSpace.data(), 3) == 0;
  };
  const char* q = p;
  if (at_meta_space(q)) {
    q += 3;
    while (runs && at_meta_space(q)) q += 3;
  }
  while (q < end && !(*q == kMetaSpace[0] && at_meta_space(q))) ++q;
  return q;
}

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

// Whether Falcon's digit steps take the byte for a digit.
bool IsSpelledDigit(char c) {
  const uint8_t byte = static_cast<uint8_t>(c);
  return IsAsciiDigit(c) || byte == 0xB2 || byte == 0xB3 || byte == 0xB9 ||
         (byte >= 0xBC && byte <= 0xBE);
}

bool ThreeDigits(const char* p, const char* end) {
  return end - p >= 3 && IsAsciiDigit(p[0]) && IsAsciiDigit(p[1]) &&
         IsAsciiDigit(p[2]);
}

}  // namespace

const char* PieceCursor::FalconPieceEnd() {
  if (p_ == digits_end_) {
    if (p_ == word_end_) {
      if (p_ == segment_end_) {
        uint32_t size;
        const uint8_t kind = FlagsAt(Table(), p_, end_, &size) & kPunctuation;
        segment_end_ = SkipRun(p_ + size, end_, kPunctuation, kind);
      }
      word_end_ = Gpt2PieceEnd(p_, segment_end_);
    }
    digits_end_ = p_ + 1;
    while (digits_end_ < word_end_ &&
           IsSpelledDigit(*digits_end_) == IsSpelledDigit(*p_)) {
      ++digits_end_;
    }
  }
  if (!IsSpelledDigit(*p_)) return digits_end_;
  if (ThreeDigits(p_, digits_end_)) return p_ + 3;
  const char* q = p_ + 1;
  while (q < digits_end_ && !ThreeDigits(q, digits_end_)) ++q;
  return q;
}

const char* PieceCursor::DigitsPieceEnd() {
  if (p_ == segment_end_) {
    uint32_t size;
    const uint8_t kind = FlagsAt(Table(), p_, end_, &size) & kDigit;
    segment_end_ = p_ + size;
    if (kind != kDigit) {
      segment_end_ = SkipRun(segment_end_, end_, kDigit, 0);
    }
  }
  return Gpt2PieceEnd(p_, segment_end_);
}

const char* PieceCursor::PieceEnd() {
  switch (kind_) {
    case PreTokenizerKind::kWhole:
      return end_;
    case PreTokenizerKind::kGpt2:
      return Gpt2PieceEnd(p_, end_);
    case PreTokenizerKind::kLlama3:
      return Llama3PieceEnd(p_, end_, /*max_digits=*/3);
    case PreTokenizerKind::kQwen2:
      return Llama3PieceEnd(p_, end_, /*max_digits=*/1);
    case PreTokenizerKind::kFalcon:
      return FalconPieceEnd();
    case PreTokenizerKind::kDigitsGpt2:
      return DigitsPieceEnd();
    case PreTokenizerKind::kMetaSpace:
      return MetaSpacePieceEnd(p_, end_, /*runs=*/false);
    case PreTokenizerKind::kMetaSpaceRun:
      return MetaSpacePieceEnd(p_, end_, /*runs=*/true);
  }
  return end_;
}

bool PieceCursor::Next(absl::string_view* piece) {
  if (p_ == end_) return false;
  const char* const piece_end = PieceEnd();
  *piece = absl::string_view(p_, piece_end - p_);
  p_ = piece_end;
  return true;
}

}  // namespace nibble
