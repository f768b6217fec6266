// The largest of many scores, and the k largest.
//
//   int64_t next = ArgMax(logits);                    // greedy
//   std::array<ScoredIndex, 40> best;
//   int64_t found = TopK(logits, absl::MakeSpan(best));
//
// Of equal scores the first index wins. A NaN never wins; infinities order as
// usual, and -0 equals +0.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_TOPK_H_
#define NIBBLE_KERNELS_ELEMENTWISE_TOPK_H_

#include <cstdint>

#include "absl/types/span.h"

namespace nibble {

// Index of the largest score; -1 if there is none but NaNs.
int64_t ArgMax(absl::Span<const float> scores);

struct ScoredIndex {
  float score;
  int32_t index;
};

// Fills `best` with the best.size() largest scores, best first, and returns how
// many there are: fewer than best.size() if there are fewer scores that are not
// NaN. REQUIRES: scores.size() < 2^31.
int64_t TopK(absl::Span<const float> scores, absl::Span<ScoredIndex> best);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_TOPK_H_
