// The merges of a BPE vocabulary: which pairs of symbols join, in which order
// of preference, and into what.

#ifndef NIBBLE_TOKENIZER_MERGE_TABLE_H_
#define NIBBLE_TOKENIZER_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

// What a pair becomes.  The merge of lower rank goes first; of equal ranks the
// leftmost.
struct Merge {
  uint32_t rank;
  int32_t result;
};

inline constexpr uint32_t kNoMerge = 0xFFFFFFFF;  // a rank

class MergeTable {
 public:
  // Makes room for `merges`, and forgets what was there.
  void Reset(size_t merges) {
    int bits = 4;
    // At most half full, so that a failed search, the usual one, ends at the
    // first or second slot.
    while ((size_t{1} << bits) < 2 * merges) ++bits;
    slots_.assign(size_t{1} << bits, Slot{kEmpty, {kNoMerge, -1}});
    shift_ = 64 - bits;
  }

  // A later merge of the same pair replaces the earlier one.
  // REQUIRES: fewer merges than Reset made room for; symbols >= 0.
  void Insert(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[Find(Key(left, right))];
    slot = {Key(left, right), merge};
  }

  // The rank is kNoMerge where the pair does not merge.
  Merge Find(int32_t left, int32_t right) const {
    return slots_[Find(Key(left, right))].merge;
  }

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 |
           static_cast<uint32_t>(right);
  }

  // The slot that holds `key`, or the empty one where it would go.
  size_t Find(uint64_t key) const {
    // 2^64 divided by the golden ratio: the high bits mix both symbols.
    size_t i = (key * 0x9E3779B97F4A7C15) >> shift_;
    while (slots_[i].key != key && slots_[i].key != kEmpty) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return i;
  }

  std::vector<Slot> slots_ = {Slot{kEmpty, {kNoMerge, -1}},
                              Slot{kEmpty, {kNoMerge, -1}}};
  int shift_ = 63;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_MERGE_TABLE_H_
