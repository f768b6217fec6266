// The last step on a block: its matrices become codes, by the recipe's
// rounding.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BLOCK_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BLOCK_H_

#include "absl/status/status.h"
#include "quantization/calibrated/block_work.h"

namespace nibble {

// Fills work.block.codes and the report of each matrix. Errors name the matrix;
// also those of work.step. REQUIRES: the streams that the rounding needs are
// there; for SignRound streams.floats is what the float block makes of its
// inputs, for GPTQ's correction what it is given.
absl::Status RoundBlock(BlockWork& work);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BLOCK_H_
