#ifndef NIBBLE_MODELS_DECODER_H_
#define NIBBLE_MODELS_DECODER_H_

// The decoder: one forward pass for every family, driven by DecoderConfig.
//
//   ThreadPool pool(2);
//   auto checkpoint = OpenCheckpoint("models/tolstoy-llama");
//   auto decoder = Decoder::Load(*checkpoint, {.weights = DType::kBF16}, pool);
//   DecoderWorkspace work;
//   SequenceSlice slice{tokens, /*first_position=*/0, kv_views};
//   Array<float> logits(config.vocabulary);      // [1, vocabulary]
//   (*decoder)->Forward({&slice, 1}, work, view_of(logits), pool);
//
// A call takes slices of any number of sequences: a prompt, a part of one, or
// one token. The logits of a token are the same bits whichever slices and
// however many threads share the call, and whether its predecessors came in
// the same call or in earlier ones. (The exception is dynamic rope scaling past
// the trained length, where the angles depend on the length at each call: a key
// keeps the angle it was written with.)

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention/kv_view.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/decoder_workspace.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

// Consecutive tokens of one sequence.
struct SequenceSlice {
  absl::Span<const int32_t> tokens;  // at least one, each below the vocabulary
  int64_t first_position = 0;        // of tokens[0]
  // One view per layer, with room for first_position + tokens.size() tokens.
  // Those before first_position were written by earlier calls.
  absl::Span<const KvView> layers;
  // Logits for each token of the slice; otherwise for the last one only.
  bool all_logits = false;

  int64_t wanted_rows() const {
    return all_logits ? static_cast<int64_t>(tokens.size()) : 1;
  }
};

struct DecoderOptions {
  DType weights = DType::kBF16;  // kF32 or kBF16
  Activations activations = Activations::kF32;
  // Called on the loading thread after each matrix: matrices done, in all.
  std::function<void(int64_t done, int64_t total)> progress;
};

class Decoder {
 public:
  // Reads and packs the weights. `checkpoint` came from OpenCheckpoint; the
  // decoder keeps its tensors open, since embeddings are read in place.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(
      const Checkpoint& checkpoint, const DecoderOptions& options,
      ThreadPool& pool);

  const DecoderConfig& config() const { return weights_.config; }
  // Bytes of packed weights: what one decode step reads.
  size_t weight_bytes() const { return weights_.bytes(); }

  // Runs the batch, appends its keys and values to the views, and writes
  // logits: [sum of wanted_rows(), vocabulary], in the order of the slices.
  // `work` belongs to one caller at a time; nothing is allocated once it has
  // seen the largest batch. Errors (a token outside the vocabulary, views that
  // are too small or of another shape, logits of the wrong size) are found
  // before anything is written.
  absl::Status Forward(absl::Span<const SequenceSlice> batch,
                       DecoderWorkspace& work, MatrixView<float> logits,
                       ThreadPool& pool) const;

 private:
  Decoder(DecoderWeights weights, Activations activations);

  struct Batch;
  absl::Status CheckBatch(absl::Span<const SequenceSlice> batch,
                          MatrixView<float> logits) const;
  absl::Status Embed(const Batch& batch) const;
  void ComputeAngles(const Batch& batch) const;
  void AttentionBlock(int64_t layer, const Batch& batch,
                      MatrixView<const float> normed) const;
  void RotateAndStore(int64_t layer, const Batch& batch) const;
  void MlpBlock(const LayerWeights& layer, const Batch& batch,
                MatrixView<const float> normed) const;
  void Head(const Batch& batch, MatrixView<float> logits) const;

  DecoderWeights weights_;
  Activations activations_;
  RopeTable rope_;
  std::vector<float> alibi_slopes_;  // [heads] or empty
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_H_
