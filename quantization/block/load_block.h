// Reads one block of a checkpoint, and the embeddings that its calibration
// begins with, as floats.
//
//   absl::StatusOr<BlockWeights<float>> weights =
//       LoadBlock(*checkpoint, /*layer=*/3, pool);
//   if (!weights.ok()) return weights.status();    // names file and tensor
//   absl::StatusOr<HiddenStates> states =
//       EmbedWindows(*checkpoint, windows, pool);  // what layer 0 reads
//
// Every dtype and every quantized form that a checkpoint may have is read as
// the floats that it stands for. Pages of the file are given back once read:
// what stays in memory is the block.
#ifndef NIBBLE_QUANTIZATION_BLOCK_LOAD_BLOCK_H_
#define NIBBLE_QUANTIZATION_BLOCK_LOAD_BLOCK_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/block/block_weights.h"
#include "quantization/block/hidden_states.h"

namespace nibble {

// InvalidArgument: a value is NaN or infinite, or the checkpoint is packed for
// the kernels (.nib) already. REQUIRES: 0 <= layer < config.layers.
absl::StatusOr<BlockWeights<float>> LoadBlock(const Checkpoint& checkpoint,
                                              int64_t layer, ThreadPool& pool);

// windows: token ids, all of one length, at least one.
// InvalidArgument: a token is outside the vocabulary, windows differ in length
// or there are none, and as above.
absl::StatusOr<HiddenStates> EmbedWindows(
    const Checkpoint& checkpoint,
    absl::Span<const std::vector<int32_t>> windows, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_LOAD_BLOCK_H_
