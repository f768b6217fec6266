// Remembers the tokens of pieces met earlier in the same text: most words of a
// long text are repeats.  One call of Encode owns one cache, so there is
// nothing to lock.

#ifndef NIBBLE_TOKENIZER_PIECE_CACHE_H_
#define NIBBLE_TOKENIZER_PIECE_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

class PieceCache {
 public:
  // `text_size` is that of the whole text; a short one gets no cache.
  explicit PieceCache(size_t text_size);

  // Appends the tokens of `piece` and returns true, or returns false.
  bool Lookup(absl::string_view piece, std::vector<int32_t>* out);

  // Remembers the tokens of the piece of the last Lookup, which failed.
  void Insert(absl::string_view piece, const int32_t* ids, size_t count);

 private:
  struct Slot {
    uint64_t hash;
    uint32_t key;  // offset into keys_
    uint32_t ids;  // offset into ids_
    uint32_t key_size;
    uint32_t count;  // 0: empty
  };

  std::vector<Slot> slots_;  // a power of two, or none
  std::string keys_;
  std::vector<int32_t> ids_;
  // Where the last Lookup would insert; null: nowhere.
  Slot* vacant_ = nullptr;
  uint64_t hash_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_PIECE_CACHE_H_
