// GPT-2's spelling of bytes: byte-level vocabularies write each of the 256
// bytes as one printable character ("Ġ" is the space).  Bytes that Latin-1
// prints stand for themselves; the other 68 are U+0100 onwards, in order.

#ifndef NIBBLE_TOKENIZER_BYTE_ALPHABET_H_
#define NIBBLE_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// The character that spells `byte`, in UTF-8.
std::string SpellByte(uint8_t byte);

// The bytes that `spelled` stands for; nullopt if a character is none of the
// alphabet.
std::optional<std::string> SpelledBytes(absl::string_view spelled);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BYTE_ALPHABET_H_
