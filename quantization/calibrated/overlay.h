// A checkpoint whose blocks are finished ones, everything else being as it was:
// what the writers of files (quantization/flow.h, quantization/export) and
// Decoder::Load take as they would any quantized checkpoint.
//
//   absl::StatusOr<Checkpoint> result =
//       OverlayCheckpoint(checkpoint, std::move(blocks), std::nullopt, pool);
//   result->tensors->FindCoded("model.layers.0.mlp.up_proj.weight");
//
// Tensors keep their names, shapes and row orders: the rows of a block's matrix
// go back to where the checkpoint's row ranges took them from.
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_OVERLAY_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_OVERLAY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "quantization/calibrated/block_file.h"

namespace nibble {

// Whether OverlayCheckpoint will take this checkpoint, and the writers its
// final norm and its head's bias, with whatever blocks: to be asked before
// hours of work on them. Reads the embedding and the head, keeps nothing.
// Errors are those of OverlayCheckpoint.
absl::Status CheckOverlay(const Checkpoint& checkpoint,
                          std::optional<int64_t> head_group_size,
                          ThreadPool& pool);

// blocks: [layers]. With `head_group_size` the output head is int8 in groups of
// that size, else bf16, and so is the embedding where it is the head or f32.
// The result keeps the blocks and the checkpoint's tensors open, and floats
// stay where the blocks have them, but for tensors whose rows lie apart there.
// Unimplemented: a tensor whose rows belong to several matrices.
// InvalidArgument: an embedding or a head with a value that is not finite, or
// beyond bf16's range.
absl::StatusOr<Checkpoint> OverlayCheckpoint(
    const Checkpoint& checkpoint,
    std::vector<std::shared_ptr<const BlockFile>> blocks,
    std::optional<int64_t> head_group_size, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_OVERLAY_H_
