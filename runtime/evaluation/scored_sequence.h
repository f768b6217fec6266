// Token ids whose end is scored.
#ifndef NIBBLE_RUNTIME_EVALUATION_SCORED_SEQUENCE_H_
#define NIBBLE_RUNTIME_EVALUATION_SCORED_SEQUENCE_H_

#include <cstdint>
#include <vector>

namespace nibble {

// Token ids, of which those from `first` on are scored, each given all that
// stand before it. 1 <= first < tokens.size().
struct ScoredSequence {
  std::vector<int32_t> tokens;
  int64_t first = 1;
  // Characters (code points) of the choice, by which accuracy_norm divides.
  int64_t characters = 0;

  int64_t scored() const { return static_cast<int64_t>(tokens.size()) - first; }
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_EVALUATION_SCORED_SEQUENCE_H_
