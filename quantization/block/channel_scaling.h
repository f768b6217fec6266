// Makes a small model hard to round in the way that large ones are: channels of
// very different sizes, in a model that computes the same function.
//
//   ChannelScaling scaling;
//   scaling.seed = 2;
//   ScaleChannels(config, /*layer=*/3, scaling, weights);
//   absl::Status status = WriteScaled(checkpoint, scaling, "scaled", pool);
//
// Every scale that can move from a linear's inputs into their producer
// (quantization/folding/folding.h) is exp(deviation * normal), drawn by seed
// and layer. Rounding to nearest loses far more on such a model; what chooses
// scales must win most of it back.
#ifndef NIBBLE_QUANTIZATION_BLOCK_CHANNEL_SCALING_H_
#define NIBBLE_QUANTIZATION_BLOCK_CHANNEL_SCALING_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "tensor/dtype.h"

namespace nibble {

struct ChannelScaling {
  uint64_t seed = 1;
  float deviation = 0.5f;  // of the scales' logarithms; 0: as it was
  // Of matrices in a written model: kF32 or kBF16. Norms and biases are f32.
  DType dtype = DType::kF32;
};

void ScaleChannels(const DecoderConfig& config, int64_t layer,
                   const ChannelScaling& scaling, BlockWeights<float>& weights);

// Writes the model as float tensors under their own names: a GGUF file if it
// comes from one, else a folder with a copy of every file that holds no
// tensors. The checkpoint may be of any dtype, also quantized GGUF; all tensors
// are held in memory.
absl::Status WriteScaled(const Checkpoint& checkpoint,
                         const ChannelScaling& scaling, const std::string& path,
                         ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_CHANNEL_SCALING_H_
