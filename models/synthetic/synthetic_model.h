// A decoder's weights made up in memory, in the form that it runs from: for
// measurements of speed, which depend on sizes and formats alone.
//
//   SyntheticOptions options;                       // INT4, groups of 128
//   absl::StatusOr<int64_t> bytes = SyntheticBytes(config, options);
//   ... compare with the memory that is free ...
//   auto weights = MakeSyntheticWeights(config, options, pool);
//   auto decoder = Decoder::Create(*std::move(weights), {});
//
// Activations keep a text's scale on their way through the layers, so nothing
// overflows and quantized activations use their range.
#ifndef NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MODEL_H_
#define NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MODEL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "tensor/packed_layout.h"

namespace nibble {

struct SyntheticOptions {
  WeightFormat weights = WeightFormat::kInt4;  // of the layers' matrices
  WeightFormat head = WeightFormat::kBF16;     // as quantize leaves it
  // Of the integer formats; kInt8 is symmetric whatever `symmetric` says.
  int64_t group_size = 128;
  bool symmetric = false;
  uint64_t seed = 1;
};

// What MakeSyntheticWeights will take, within a few megabytes. InvalidArgument
// as there.
absl::StatusOr<int64_t> SyntheticBytes(const DecoderConfig& config,
                                       const SyntheticOptions& options);

// What a decode step reads of it: all packed matrices.
absl::StatusOr<int64_t> SyntheticMatrixBytes(const DecoderConfig& config,
                                             const SyntheticOptions& options);

// The embedding is bf16, or with a tied head the head's rows. InvalidArgument:
// the configuration is not valid, or there is no packed layout of that group
// size. The caller has made sure that memory suffices.
absl::StatusOr<DecoderWeights> MakeSyntheticWeights(
    const DecoderConfig& config, const SyntheticOptions& options,
    ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_MODELS_SYNTHETIC_SYNTHETIC_MODEL_H_
