#include "tokenizer/unicode.h"

#include <map>

#include "absl/log/check.h"
#include "tokenizer/unicode_data.h"

namespace nibble {

CharTable::CharTable() {
  std::vector<uint8_t> flags;
  flags.reserve(0x110000);
  for (int i = 0; i < kUnicodeRunCount; ++i) {
    flags.resize(flags.size() + (kUnicodeRuns[i] >> 8),
                 static_cast<uint8_t>(kUnicodeRuns[i]));
  }
  CHECK_EQ(flags.size(), size_t{0x110000});
  std::map<Block, uint8_t> seen;
  for (size_t b = 0; b < block_of_.size(); ++b) {
    Block block;
    for (size_t i = 0; i < block.size(); ++i) block[i] = flags[b * 256 + i];
    const auto [it, added] =
        seen.emplace(block, static_cast<uint8_t>(blocks_.size()));
    if (added) blocks_.push_back(block);
    block_of_[b] = it->second;
  }
  CHECK_LE(blocks_.size(), size_t{256});
  for (int i = 0; i < 256; ++i) ascii_[i] = i < 128 ? flags[i] : 0;
}

const CharTable& CharTable::Get() {
  static const CharTable* const table = new CharTable;
  return *table;
}

void AppendUtf8(uint32_t code, std::string* out) {
  const auto put = [out](uint32_t byte) {
    out->push_back(static_cast<char>(byte));
  };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool IsValidUtf8(absl::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end) {
    const DecodedChar c = DecodeUtf8(p, end);
    if (!c.valid) return false;
    p += c.size;
  }
  return true;
}

}  // namespace nibble
