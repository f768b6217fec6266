// SentencePiece's precompiled_charsmap: which strings of characters become
// which others (nmt_nfkc and its like).
//
// Bytes: u32 size of the trie in bytes; the trie, an array of u32 in the
// format of darts-clone; the replacements, each ended by NUL.  A value of the
// trie is an offset into the replacements.  All little-endian.

#ifndef NIBBLE_TOKENIZER_CHARSMAP_H_
#define NIBBLE_TOKENIZER_CHARSMAP_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

class Charsmap {
 public:
  // Maps nothing.
  Charsmap() = default;
  // `bytes` may be empty: maps nothing.
  static absl::StatusOr<Charsmap> Create(absl::string_view bytes);

  // Finds the longest rule at the start of `text`: returns the bytes that it
  // replaces and sets `replacement`; 0 where there is none.
  size_t Find(absl::string_view text, absl::string_view* replacement) const;

 private:
  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_CHARSMAP_H_
