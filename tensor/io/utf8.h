// Tells whether bytes are UTF-8 (RFC 3629): no truncated or overlong sequence,
// no surrogate, nothing above U+10FFFF.
#ifndef NIBBLE_TENSOR_IO_UTF8_H_
#define NIBBLE_TENSOR_IO_UTF8_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace nibble {

inline bool IsUtf8(absl::string_view text) {
  // The least code point that needs as many continuation bytes.
  constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i++]);
    const int more = byte < 0x80             ? 0
                     : (byte & 0xE0) == 0xC0 ? 1
                     : (byte & 0xF0) == 0xE0 ? 2
                     : (byte & 0xF8) == 0xF0 ? 3
                                             : -1;
    if (more < 0) return false;
    uint32_t code = more == 0 ? byte : byte & (0x3Fu >> more);
    for (int j = 0; j < more; ++j, ++i) {
      if (i == text.size() || (text[i] & 0xC0) != 0x80) return false;
      code = code << 6 | (text[i] & 0x3Fu);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < kLeast[more] || code > 0x10FFFF || surrogate) return false;
  }
  return true;
}

}  // namespace nibble

#endif  // NIBBLE_TENSOR_IO_UTF8_H_
