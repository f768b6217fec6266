#include "tensor/io/error_text.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tensor/io/utf8.h"

namespace nibble {
namespace {

// Longer than any sensible tensor name. Escaping makes at most four bytes of
// one.
constexpr size_t kLongestQuote = 120;

// Other alphabets stay readable; what is not text at all becomes ASCII.
std::string Escape(absl::string_view text) {
  return IsUtf8(text) ? absl::Utf8SafeCHexEscape(text) : absl::CHexEscape(text);
}

}  // namespace

std::string QuoteForMessage(absl::string_view text) {
  if (text.size() <= kLongestQuote) return absl::StrCat("'", Escape(text), "'");
  // Cut between characters, not inside one.
  size_t end = kLongestQuote / 2;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return absl::StrCat("'", Escape(text.substr(0, end)), "...' (", text.size(),
                      " bytes)");
}

}  // namespace nibble
