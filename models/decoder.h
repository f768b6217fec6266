// The decoder: one forward pass for every family, driven by DecoderConfig.
//
//   ThreadPool pool(2);
//   auto checkpoint = OpenCheckpoint("models/tolstoy-llama");
//   DecoderOptions options;               // weights as they are stored
//   auto decoder = Decoder::Load(*checkpoint, options, pool);
//   DecoderWorkspace work;
//   SequenceSlice slice;
//   slice.tokens = prompt;                       // [tokens]
//   slice.layers = kv_views;                     // [layers]
//   MatrixView<float> logits(memory, 1, vocabulary);
//   absl::Status done = (*decoder)->Forward({&slice, 1}, work, logits, pool);
//
// A call takes slices of any number of sequences: a prompt, a part of one, or
// one token. The logits of a token are the same bits whichever slices and
// however many threads share the call, and whether its predecessors came in
// the same call or in earlier ones. (The exception is dynamic rope scaling past
// the trained length, where the angles depend on the length at each call: a key
// keeps the angle it was written with.)
#ifndef NIBBLE_MODELS_DECODER_H_
#define NIBBLE_MODELS_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention/kv_view.h"
#include "kernels/elementwise/rope.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/decoder_workspace.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {

// Consecutive tokens of one sequence.
struct SequenceSlice {
  absl::Span<const int32_t> tokens;  // at least one, each below the vocabulary
  int64_t first_position = 0;        // of tokens[0]
  // One view per layer, with room for first_position + tokens.size() tokens.
  // Those before first_position were written by earlier calls.
  absl::Span<const KvView> layers;
  // Logits for each token of the slice; otherwise for the last `last_logits`.
  bool all_logits = false;
  int64_t last_logits = 1;  // 0 to count()
  // The length that dynamic rope scaling goes by: of the whole prompt, where
  // the slice is a chunk of one. Less than what the slice reaches: what it
  // reaches.
  int64_t length = 0;

  int64_t count() const { return static_cast<int64_t>(tokens.size()); }
  int64_t wanted_rows() const { return all_logits ? count() : last_logits; }
};

struct DecoderOptions {
  // What matrices are held in: kF32 or kBF16. Not given: quantized ones as they
  // are stored, float ones in bf16. Those of a packed file stay as they are.
  std::optional<WeightFormat> weights;
  // What products are computed in. Not given: kInt8 where a matrix is of an
  // integer format, else kF32. kBF16 is refused where all matrices are f32.
  // Float matrices take kInt8 as kF32.
  std::optional<Activations> activations;
  LoadProgress progress;  // may be null
};

class Decoder {
 public:
  // Reads and packs the weights, or maps those of a packed file. `checkpoint`
  // came from OpenCheckpoint; the decoder keeps its file open, since embeddings
  // and packed matrices are read in place.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(
      const Checkpoint& checkpoint, const DecoderOptions& options,
      ThreadPool& pool);

  // Takes weights that are in memory, in whatever formats they are;
  // options.weights and options.progress do not matter. InvalidArgument: the
  // configuration or CheckWeights refuses them.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(
      DecoderWeights weights, const DecoderOptions& options);

  const DecoderConfig& config() const { return weights_.config; }
  const DecoderWeights& weights() const { return weights_; }
  Activations activations() const { return activations_; }
  // Bytes of packed weights: what one decode step reads.
  size_t weight_bytes() const { return weights_.matrix_bytes(); }

  // Runs the batch, appends its keys and values to the views, and writes
  // logits: [sum of wanted_rows(), vocabulary], in the order of the slices.
  // `work` belongs to one caller at a time; nothing is allocated once it has
  // seen the largest batch. InvalidArgument, before anything is written: an
  // empty batch or slice, a token outside the vocabulary, views that are too
  // small or of another shape than the model's, logits of another shape.
  absl::Status Forward(absl::Span<const SequenceSlice> batch,
                       DecoderWorkspace& work, MatrixView<float> logits,
                       ThreadPool& pool) const;

 private:
  struct Pass;  // what the steps of one call share

  Decoder(DecoderWeights weights, Activations activations);

  absl::Status CheckBatch(absl::Span<const SequenceSlice> batch,
                          MatrixView<float> logits) const;
  absl::Status CheckSlice(const SequenceSlice& slice) const;
  void Embed(const Pass& pass) const;
  void ComputeAngles(const Pass& pass) const;
  void Layer(int64_t layer, const Pass& pass) const;
  void RotateAndStore(const AttentionSequence& sequence, int64_t first_row,
                      const Pass& pass) const;
  void AddAttention(int64_t layer, const Pass& pass) const;
  void AddMlp(const LayerWeights& layer, MatrixView<const float> normed,
              const Pass& pass) const;
  void Head(const Pass& pass, MatrixView<float> logits) const;
  void Norm(const NormWeights& norm, MatrixView<const float> x,
            MatrixView<float> out, ThreadPool& pool) const;
  MatMulOptions OptionsFor(const LinearWeights& linear) const;
  void Project(const LinearWeights& linear, MatrixView<const float> x,
               bool accumulate, MatrixView<float> y, ThreadPool& pool) const;

  DecoderWeights weights_;
  Activations activations_;
  RopeTable rope_;
  std::vector<float> alibi_slopes_;  // [heads] or empty
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_H_
