// Which windows each training step looks at: rounds of whole batches, each in a
// random order of its own, in which no window comes twice. Where the windows
// are no multiple of the batch, a round leaves out the rest, at random.
//
//   BatchOrder order(/*windows=*/128, /*batch=*/8, /*seed=*/1);
//   for (int i = 0; i < iterations; ++i) Train(order.Next());   // [8]
//
// The same on every machine for the same numbers.
#ifndef NIBBLE_QUANTIZATION_TUNING_BATCH_ORDER_H_
#define NIBBLE_QUANTIZATION_TUNING_BATCH_ORDER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace nibble {

class BatchOrder {
 public:
  // A batch has at most all windows. REQUIRES: windows, batch >= 1.
  BatchOrder(int64_t windows, int64_t batch, uint64_t seed)
      : random_(seed),
        batch_(static_cast<size_t>(std::min(windows, batch))),
        order_(static_cast<size_t>(windows)),
        next_(order_.size()) {
    std::iota(order_.begin(), order_.end(), 0);
  }

  // Valid until the next call.
  absl::Span<const int64_t> Next() {
    if (next_ + batch_ > order_.size()) {
      Shuffle();
      next_ = 0;
    }
    next_ += batch_;
    return absl::MakeConstSpan(order_).subspan(next_ - batch_, batch_);
  }

 private:
  // Fisher and Yates; std::shuffle differs between standard libraries.
  void Shuffle() {
    for (size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[random_() % i]);
    }
  }

  std::mt19937_64 random_;
  size_t batch_;
  std::vector<int64_t> order_;  // [windows], a permutation
  size_t next_;                 // the first of the next batch
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TUNING_BATCH_ORDER_H_
