#include "tokenizer/charsmap.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// NFKC's longest replacement has 33 bytes (U+FDFA), its longest rule fewer.
// The limits bound what one byte of text can cost.
constexpr size_t kMaxReplacement = 128;
constexpr size_t kMaxRule = 128;

// A unit of a darts-clone double array.
// bits 0-7: label; bit 8: has a leaf; bit 9 and 10-31: offset; a leaf (bit 31
// set) holds its value in bits 0-30.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
uint32_t Offset(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}
uint32_t Value(uint32_t unit) { return unit & ~(1u << 31); }

uint32_t LoadLittleEndian(const char* p) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(p[i]);
  return value;
}

}  // namespace

absl::StatusOr<Charsmap> Charsmap::Create(absl::string_view bytes) {
  Charsmap map;
  if (bytes.empty()) return map;
  if (bytes.size() < 4) {
    return absl::InvalidArgumentError(
        "precompiled_charsmap is shorter than its header of 4 bytes");
  }
  const uint32_t trie_bytes = LoadLittleEndian(bytes.data());
  bytes.remove_prefix(4);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("precompiled_charsmap says its trie has ", trie_bytes,
                     " bytes, but ", bytes.size(), " follow"));
  }
  for (uint32_t i = 0; i < trie_bytes; i += 4) {
    map.trie_.push_back(LoadLittleEndian(bytes.data() + i));
  }
  map.replacements_ = std::string(bytes.substr(trie_bytes));
  if (map.replacements_.empty() || map.replacements_.back() != '\0') {
    return absl::InvalidArgumentError(
        "precompiled_charsmap's replacements do not end with NUL");
  }
  size_t start = 0;
  for (size_t i = 0; i < map.replacements_.size(); ++i) {
    if (i - start > kMaxReplacement) {
      return absl::InvalidArgumentError(
          absl::StrCat("precompiled_charsmap holds a replacement of more than ",
                       kMaxReplacement, " bytes"));
    }
    if (map.replacements_[i] == '\0') start = i + 1;
  }
  return map;
}

size_t Charsmap::Find(absl::string_view text,
                      absl::string_view* replacement) const {
  if (trie_.empty()) return 0;
  size_t found = 0;
  uint32_t node = Offset(trie_[0]);
  for (size_t i = 0; i < text.size() && i < kMaxRule; ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= trie_.size() || Label(trie_[node]) != byte) break;
    const bool leaf = HasLeaf(trie_[node]);
    node ^= Offset(trie_[node]);
    if (node >= trie_.size()) break;
    if (!leaf) continue;
    const uint32_t value = Value(trie_[node]);
    if (value >= replacements_.size()) break;
    *replacement = absl::string_view(replacements_.data() + value);
    found = i + 1;
  }
  return found;
}

}  // namespace nibble
