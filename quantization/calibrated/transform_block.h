// The first step on a block: scales that its norms and producing rows take
// over, by the recipe's transform.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_TRANSFORM_BLOCK_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_TRANSFORM_BLOCK_H_

#include "absl/status/status.h"
#include "quantization/calibrated/block_work.h"

namespace nibble {

// Changes work.weights, and work.importance with them; sets work.clip. Does
// nothing without a transform. REQUIRES: AWQ: work.grams; TEQ: both streams,
// work.Targets(), and work.grams where GPTQ rounds.
absl::Status TransformBlock(BlockWork& work);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_TRANSFORM_BLOCK_H_
