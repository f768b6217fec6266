// The look-up tables of a BPE vocabulary, built once when it is loaded.

#ifndef NIBBLE_TOKENIZER_BPE_TABLES_H_
#define NIBBLE_TOKENIZER_BPE_TABLES_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/tokenizer_spec.h"

namespace nibble {

// Symbols are token ids.  With scores a character that is no token but part of
// one is a symbol too, a provisional one: vocabulary_size plus its index in
// provisional_text.
struct BpeTables {
  MergeTable merges;
  int32_t vocabulary_size = 0;
  bool byte_level = false;
  // byte_level: the token of each byte; else, with byte fallback, <0xNN>.
  // -1: none.
  std::array<int32_t, 256> byte_symbols;
  // The symbol of each character, where not byte_level.  -1, or absent: none.
  std::array<int32_t, 128> ascii_symbols;
  absl::flat_hash_map<uint32_t, int32_t> char_symbols;  // from U+0080
  std::vector<std::string> provisional_text;
  int32_t unknown_id = -1;  // -1: what cannot be spelled vanishes
  bool fuse_unknown = false;
  // Tokens that are split again into what they were merged from; empty: none.
  std::vector<bool> unused;  // [vocabulary_size]
  // Words that stay whole whatever the merges say, as raw bytes.
  absl::flat_hash_map<std::string, int32_t> whole_words;
  // No merge joins anything but U+2581 to a U+2581 on its right: text may be
  // cut before each run of U+2581 without any change to its tokens.
  bool meta_space_only_leads = false;
};

// Checks the vocabulary and the merges, but not the added tokens.  Errors name
// the token or merge, not the file.
absl::StatusOr<BpeTables> BuildBpeTables(const TokenizerSpec& spec);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BPE_TABLES_H_
