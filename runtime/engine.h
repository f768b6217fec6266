#ifndef NIBBLE_RUNTIME_ENGINE_H_
#define NIBBLE_RUNTIME_ENGINE_H_

// A model ready to run: weights, tokenizer, threads, and memory for keys and
// values.
//
//   EngineOptions options;
//   options.model_path = "models/tolstoy-llama";   // or a .gguf or .nib file
//   absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Open(options);
//   if (!engine.ok()) return engine.status();
//
//   std::vector<int32_t> ids = (*engine)->tokenizer()->Encode("War and");
//   std::vector<float> logits((*engine)->vocabulary());
//   absl::StatusOr<std::unique_ptr<Sequence>> text = (*engine)->NewSequence();
//   absl::Status status = (*engine)->Prefill(**text, ids,
//   absl::MakeSpan(logits)); while (status.ok() && more) {
//     int32_t next = Choose(logits);
//     status = (*engine)->Decode(**text, next, absl::MakeSpan(logits));
//   }
//
// Generate (text_generator.h) does the loop with sampling, stop strings and
// streaming; ScoreTokens (score.h) rates given text.
//
// Not thread-safe: one thread at a time may call an engine and its sequences
// (the work inside a call is spread over the engine's own thread pool). The
// tokenizer may be used from any thread. Logits do not depend on the number of
// threads or on the size of chunks. Once a sequence has been prefilled,
// Decode allocates nothing, save for one block every kPageTokens tokens.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/decoder.h"
#include "models/decoder_config.h"
#include "runtime/engine_options.h"  // IWYU pragma: export
#include "runtime/kv_cache.h"
#include "runtime/sequence.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"
#include "tokenizer/tokenizer.h"

namespace nibble {

// Where longer chunks stop to pay: 1024 tokens of the bundled model on two
// threads of an AMD EPYC take 103 ms of processor time per thread in chunks of
// 32, 73 ms of 128, 62 ms of 256, 55 ms of 512 and 59 ms of 1024
// (engine_benchmark, BM_Prefill).
inline constexpr int64_t kDefaultPrefillChunk = 512;

// The logits of consecutive tokens of a sequence: [tokens, vocabulary], the
// first at `first_position`. A status other than OK ends the call with it.
using LogitsSink = absl::FunctionRef<absl::Status(
    int64_t first_position, MatrixView<const float> logits)>;

struct PrefillOptions {
  // Called after each chunk with the tokens read and those given.
  ProgressCallback progress;
  // Asked before each chunk: true ends the call with a Cancelled error. What
  // was read until then stays in the sequence.
  std::function<bool()> cancelled;
};

// Tokens that PrefillBatch reads into one of its sequences.
struct PrefillPart {
  Sequence* sequence = nullptr;
  absl::Span<const int32_t> tokens;  // after what the sequence holds
  // How many of the last tokens logits are wanted of: 0 to tokens.size().
  int64_t last_logits = 1;
  // As SequenceSlice::length: how long the text will be, where the part is a
  // piece of it.
  int64_t length = 0;
};

class Engine {
 public:
  // Reads the checkpoint, packs its weights or maps packed ones, reads its
  // tokenizer. Errors name the file and what to do; ResourceExhausted when
  // memory lacks for the weights, or for the keys and values of the
  // `options.context` tokens that were asked for.
  static absl::StatusOr<std::unique_ptr<Engine>> Open(
      const EngineOptions& options);

  // An engine around a decoder that is there already. options.model_path is
  // what path() says; options.weights, activations and load_progress do not
  // matter. `tokenizer` may be null.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, std::unique_ptr<Decoder> decoder,
      std::unique_ptr<Tokenizer> tokenizer);

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The path that was opened.
  const std::string& path() const { return path_; }
  const DecoderConfig& config() const { return decoder_->config(); }
  int64_t vocabulary() const { return config().vocabulary; }
  // Most tokens that a sequence can hold.
  int64_t context() const { return context_; }
  // Null when the checkpoint has no tokenizer beside it.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Tokens that end a text: the checkpoint's, else the tokenizer's.
  absl::Span<const int32_t> eos_ids() const { return eos_ids_; }
  const Decoder& decoder() const { return *decoder_; }
  // The format of the layers' matrices.
  WeightFormat weights() const {
    return decoder_->weights().layers[0].up.matrix.format();
  }
  int64_t prefill_chunk() const { return prefill_chunk_; }
  // Bytes of packed weights: what a decode step reads.
  size_t weight_bytes() const { return decoder_->weight_bytes(); }
  const KvBlockPool& kv_pool() const { return kv_pool_; }
  absl::Duration load_time() const { return load_time_; }
  ThreadPool& pool() { return *pool_; }

  // An empty sequence. It must not outlive the engine.
  absl::StatusOr<std::unique_ptr<Sequence>> NewSequence();

  // Reads `tokens` after what `sequence` holds, in chunks, and writes the
  // logits of the last one: [vocabulary], or empty if they are not wanted.
  // InvalidArgument, with nothing read: no tokens, a token outside the
  // vocabulary, more tokens than the context has room for.
  absl::Status Prefill(Sequence& sequence, absl::Span<const int32_t> tokens,
                       absl::Span<float> logits,
                       const PrefillOptions& options = {});

  // As Prefill, but hands the logits of every token from the `first`th of
  // `tokens` on to `sink`, a few rows at a time.
  absl::Status PrefillWithLogits(Sequence& sequence,
                                 absl::Span<const int32_t> tokens,
                                 int64_t first, LogitsSink sink,
                                 const PrefillOptions& options = {});

  // One forward pass over tokens of several sequences, which are distinct; the
  // weights are read once for all. Logits: [sum of last_logits, vocabulary], in
  // the order of the parts. The caller bounds the tokens of the pass, best to
  // some prefill_chunk(). Errors as Prefill's; then no sequence has moved.
  absl::Status PrefillBatch(absl::Span<const PrefillPart> parts,
                            MatrixView<float> logits);

  // Reads one token and writes the logits of the next: [vocabulary].
  absl::Status Decode(Sequence& sequence, int32_t token,
                      absl::Span<float> logits);

  // One step of several sequences: token i goes to sequence i, whose logits
  // become row i of [sequences, vocabulary]. The weights are read once for all.
  // The sequences are distinct. On an error no sequence has moved.
  absl::Status DecodeBatch(absl::Span<Sequence* const> sequences,
                           absl::Span<const int32_t> tokens,
                           MatrixView<float> logits);

 private:
  struct Parts;
  explicit Engine(Parts parts);
  static absl::StatusOr<std::unique_ptr<Engine>> Finish(
      const EngineOptions& options, Parts parts);

  absl::Status CheckTokens(const Sequence& sequence,
                           absl::Span<const int32_t> tokens) const;
  struct Chunk;
  absl::Status RunChunk(Sequence& sequence, const Chunk& chunk,
                        MatrixView<float> logits);
  absl::Status CheckBatch(absl::Span<Sequence* const> sequences,
                          absl::Span<const int32_t> tokens,
                          MatrixView<float> logits) const;
  absl::Status RunParts(absl::Span<const PrefillPart> parts,
                        MatrixView<float> logits);
  MatrixView<float> ChunkLogits(int64_t rows);

  std::string path_;
  int64_t context_;
  int64_t prefill_chunk_;
  std::vector<int32_t> eos_ids_;
  absl::Duration load_time_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  KvBlockPool kv_pool_;
  DecoderWorkspace work_;
  std::vector<PrefillPart> parts_;     // of DecodeBatch
  std::vector<SequenceSlice> slices_;  // of a batch
  Array<float> chunk_logits_;          // [rows, vocabulary], grown on demand
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_ENGINE_H_
