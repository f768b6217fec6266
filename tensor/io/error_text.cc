#include "tensor/io/error_text.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Longer than any sensible tensor name. Escaping makes at most four bytes of
// one, so a quoted text stays under 200 bytes plus its length.
constexpr size_t kLongestQuote = 120;

}  // namespace

std::string QuoteForMessage(absl::string_view text) {
  if (text.size() <= kLongestQuote) {
    return absl::StrCat("'", absl::Utf8SafeCHexEscape(text), "'");
  }
  // Cut between characters, not inside one.
  size_t end = kLongestQuote / 2;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(text.substr(0, end)),
                      "...' (", text.size(), " bytes)");
}

}  // namespace nibble
