// UTF-8 decoding and the character classes that tokenizers test.
//
//   const CharTable& table = CharTable::Get();
//   DecodedChar c = DecodeUtf8(p, end);
//   if (table.Flags(c.code) & kLetter) p += c.size;

#ifndef NIBBLE_TOKENIZER_UNICODE_H_
#define NIBBLE_TOKENIZER_UNICODE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// Bits of CharTable::Flags.  Each class has the Unicode version that the
// tokenizers in use were made with; make_unicode_tables.py lists them.
enum CharFlag : uint8_t {
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kPunctuation = 8,
  kDigit = 16,
  kWord = 32,
  kNormalizing = 64,  // NFC may change it or join it to what stands before
};

inline constexpr uint32_t kReplacementCharacter = 0xFFFD;
inline constexpr uint32_t kMetaSpaceCode = 0x2581;
inline constexpr absl::string_view kMetaSpace = "\xE2\x96\x81";

class CharTable {
 public:
  static const CharTable& Get();

  // REQUIRES: code < 0x110000.
  uint8_t Flags(uint32_t code) const {
    return blocks_[block_of_[code >> 8]][code & 0xFF];
  }
  uint8_t AsciiFlags(uint8_t byte) const { return ascii_[byte]; }

 private:
  CharTable();

  using Block = std::array<uint8_t, 256>;
  // [256]; zero from 0x80 on, so that one look-up ends an ASCII run.
  std::array<uint8_t, 256> ascii_;
  std::array<uint8_t, 0x1100> block_of_;  // index into blocks_
  std::vector<Block> blocks_;             // distinct blocks
};

struct DecodedChar {
  uint32_t code;
  uint32_t size;  // bytes
  bool valid;
};

// Reads the character at `p`.  A byte that begins no valid UTF-8 sequence is a
// character of its own: {U+FFFD, 1, false}.
// REQUIRES: p < end.
inline DecodedChar DecodeUtf8(const char* p, const char* end) {
  const auto byte = [p](int i) { return static_cast<uint8_t>(p[i]); };
  const auto continues = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t lead = byte(0);
  const auto left = end - p;
  if (lead < 0x80) return {lead, 1, true};
  if (lead >= 0xC2 && lead < 0xE0 && left >= 2 && continues(1)) {
    return {(lead & 0x1F) << 6 | (byte(1) & 0x3Fu), 2, true};
  }
  if ((lead & 0xF0) == 0xE0 && left >= 3 && continues(1) && continues(2)) {
    const uint32_t code =
        (lead & 0x0F) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    if (code >= 0x800 && (code < 0xD800 || code >= 0xE000)) {
      return {code, 3, true};
    }
  }
  if (lead >= 0xF0 && lead < 0xF5 && left >= 4 && continues(1) &&
      continues(2) && continues(3)) {
    const uint32_t code = (lead & 0x07) << 18 | (byte(1) & 0x3Fu) << 12 |
                          (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu);
    if (code >= 0x10000 && code < 0x110000) return {code, 4, true};
  }
  return {kReplacementCharacter, 1, false};
}

// The flags of the character at `p`; those of U+FFFD where it is not valid.
inline uint8_t FlagsAt(const CharTable& table, const char* p, const char* end,
                       uint32_t* size) {
  const uint8_t byte = static_cast<uint8_t>(*p);
  if (byte < 0x80) {
    *size = 1;
    return table.AsciiFlags(byte);
  }
  const DecodedChar c = DecodeUtf8(p, end);
  *size = c.size;
  return table.Flags(c.code);
}

void AppendUtf8(uint32_t code, std::string* out);

bool IsValidUtf8(absl::string_view text);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UNICODE_H_
