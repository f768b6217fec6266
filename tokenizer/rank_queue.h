// The pairs of a long word that may merge, best first: lowest rank, then
// leftmost.
//
// A bucket per rank.  Pairs mostly arrive from left to right, so a bucket is a
// list in order; the few that arrive late go to a small heap beside it.  Both
// ends cost O(1) where order holds and O(log n) where it does not.

#ifndef NIBBLE_TOKENIZER_RANK_QUEUE_H_
#define NIBBLE_TOKENIZER_RANK_QUEUE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace nibble {

class RankQueue {
 public:
  struct Entry {
    uint32_t rank;
    uint32_t position;
  };

  bool empty() const { return ranks_.empty(); }

  void Push(Entry entry) {
    const auto [it, added] =
        index_.try_emplace(entry.rank, static_cast<uint32_t>(buckets_.size()));
    if (added) buckets_.emplace_back();
    Bucket& bucket = buckets_[it->second];
    if (bucket.empty()) ranks_.push(entry.rank);
    bucket.Push(entry.position);
  }

  // REQUIRES: !empty().
  Entry Pop() {
    const uint32_t rank = ranks_.top();
    Bucket& bucket = buckets_[index_.find(rank)->second];
    const Entry entry = {rank, bucket.Pop()};
    if (bucket.empty()) ranks_.pop();
    return entry;
  }

 private:
  class Bucket {
   public:
    bool empty() const { return next_ == ordered_.size() && late_.empty(); }

    void Push(uint32_t position) {
      if (next_ == ordered_.size()) {
        ordered_.clear();
        next_ = 0;
      }
      if (ordered_.empty() || ordered_.back() <= position) {
        ordered_.push_back(position);
      } else {
        late_.push_back(position);
        std::push_heap(late_.begin(), late_.end(), std::greater<uint32_t>());
      }
    }

    uint32_t Pop() {
      if (late_.empty() ||
          (next_ < ordered_.size() && ordered_[next_] <= late_.front())) {
        return ordered_[next_++];
      }
      std::pop_heap(late_.begin(), late_.end(), std::greater<uint32_t>());
      const uint32_t position = late_.back();
      late_.pop_back();
      return position;
    }

   private:
    std::vector<uint32_t> ordered_;  // ascending; popped up to next_
    size_t next_ = 0;
    std::vector<uint32_t> late_;  // a heap, smallest first
  };

  std::vector<Bucket> buckets_;
  absl::flat_hash_map<uint32_t, uint32_t> index_;  // rank to bucket
  // Ranks of the buckets that are not empty, each once.
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<uint32_t>>
      ranks_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_RANK_QUEUE_H_
