// The forward pass once more, slow and obvious: double precision, plain loops,
// no cache, no packing, nothing shared with the decoder but the configuration
// and the tensors. The decoder is compared with it.
//
//   auto logits = ReferenceLogits(*checkpoint, tokens);
//   EXPECT_NEAR(got[v], logits[t][v], 1e-4);
#ifndef NIBBLE_TESTING_REFERENCE_DECODER_H_
#define NIBBLE_TESTING_REFERENCE_DECODER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/checkpoint.h"

namespace nibble::testing {

// [tokens][vocabulary], the tokens being at positions 0 and up.
std::vector<std::vector<double>> ReferenceLogits(
    const Checkpoint& checkpoint, absl::Span<const int32_t> tokens);

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_REFERENCE_DECODER_H_
