// GPTQ on the matrices of one block, each with what the block gives it as it is
// quantized so far.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BY_GPTQ_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BY_GPTQ_H_

#include "absl/status/status.h"
#include "quantization/calibrated/block_work.h"

namespace nibble {

// Rounds every matrix that has a grid and fills work.block.codes and its
// reports, with the settings of work.recipe.gptq(). REQUIRES: AddReports was
// called; both streams at the block's inputs, the quantized one alone without
// GPTQ's correction.
absl::Status RoundByGptq(BlockWork& work);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_ROUND_BY_GPTQ_H_
