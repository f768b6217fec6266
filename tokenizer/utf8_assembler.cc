#include "tokenizer/utf8_assembler.h"

#include <cstddef>
#include <cstdint>

#include "tokenizer/unicode.h"

namespace nibble {
namespace {

// Whether `second` may follow `lead` in UTF-8 (Unicode, table 3-7).
bool SecondFits(uint8_t lead, uint8_t second) {
  if (lead == 0xE0) return second >= 0xA0 && second <= 0xBF;
  if (lead == 0xED) return second >= 0x80 && second <= 0x9F;
  if (lead == 0xF0) return second >= 0x90 && second <= 0xBF;
  if (lead == 0xF4) return second >= 0x80 && second <= 0x8F;
  return (second & 0xC0) == 0x80;
}

struct Start {
  size_t size;    // bytes that could begin a character; at least 1
  bool may_grow;  // more bytes could finish it
};

// Looks at bytes that are not a whole character.
Start MaximalStart(absl::string_view bytes) {
  const uint8_t lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const size_t whole = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  size_t size = 1;
  while (size < whole && size < bytes.size()) {
    const uint8_t next = static_cast<uint8_t>(bytes[size]);
    if (size == 1 ? !SecondFits(lead, next) : (next & 0xC0) != 0x80) {
      return {size, false};
    }
    ++size;
  }
  return {size, true};
}

}  // namespace

void Utf8Assembler::AppendDamaged(size_t bytes, std::string* out) const {
  const size_t count = damage_ == Damage::kOncePerByte ? bytes : 1;
  for (size_t i = 0; i < count; ++i) AppendUtf8(kReplacementCharacter, out);
}

void Utf8Assembler::Append(absl::string_view bytes, std::string* out) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_ + std::string(bytes);
    bytes = joined;
    pending_.clear();
  }
  const char* p = bytes.data();
  const char* const end = p + bytes.size();
  const char* good = p;  // [good, p) is valid and not yet appended
  while (p < end) {
    const DecodedChar c = DecodeUtf8(p, end);
    if (c.valid) {
      p += c.size;
      continue;
    }
    out->append(good, p - good);
    const Start start = MaximalStart(absl::string_view(p, end - p));
    if (start.may_grow) {
      pending_.assign(p, end - p);
      return;
    }
    AppendDamaged(start.size, out);
    p += start.size;
    good = p;
  }
  out->append(good, p - good);
}

void Utf8Assembler::Flush(std::string* out) {
  if (!pending_.empty()) AppendDamaged(pending_.size(), out);
  pending_.clear();
}

}  // namespace nibble
