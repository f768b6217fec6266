#include "tokenizer/byte_alphabet.h"

#include <array>

#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// Bytes that Latin-1 does not print: 0-32, 127-160 and 173.
constexpr int kUnprintable = 33 + 34 + 1;

bool Printable(uint32_t byte) {
  return (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
}

struct Alphabet {
  std::array<uint32_t, 256> code;                   // by byte
  std::array<int16_t, 0x100 + kUnprintable> bytes;  // by code; -1: none

  Alphabet() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      code[byte] = Printable(byte) ? byte : next++;
      bytes[code[byte]] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet* const alphabet = new Alphabet;
  return *alphabet;
}

}  // namespace

std::string SpellByte(uint8_t byte) {
  std::string out;
  AppendUtf8(GetAlphabet().code[byte], &out);
  return out;
}

std::optional<std::string> SpelledBytes(absl::string_view spelled) {
  const Alphabet& alphabet = GetAlphabet();
  std::string out;
  out.reserve(spelled.size());
  const char* p = spelled.data();
  const char* const end = p + spelled.size();
  while (p < end) {
    const DecodedChar c = DecodeUtf8(p, end);
    if (!c.valid || c.code >= alphabet.bytes.size() ||
        alphabet.bytes[c.code] < 0) {
      return std::nullopt;
    }
    out.push_back(static_cast<char>(alphabet.bytes[c.code]));
    p += c.size;
  }
  return out;
}

}  // namespace nibble
