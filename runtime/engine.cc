#include "runtime/engine.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "kernels/cpu.h"
#include "models/checkpoint.h"
#include "models/registry.h"
#include "runtime/load_tokenizer.h"
#include "runtime/memory.h"

namespace nibble {
namespace {

// Logits that PrefillWithLogits keeps at once. 64 MiB are 128 rows of a
// vocabulary of 131,072: enough rows for the matrix products to run at the
// speed of many rows, and small beside the weights.
constexpr int64_t kMaxChunkLogits = (int64_t{64} << 20) / sizeof(float);

// Keys and values may take this share of the memory that is left once the
// weights are loaded; the rest is for activations and for other programs.
constexpr double kKvShareOfMemory = 0.9;

absl::Status CheckCacheFits(const EngineOptions& options,
                            const KvLayout& layout, int64_t available) {
  if (options.context == 0) return absl::OkStatus();
  const int64_t bytes = layout.BytesFor(options.context);
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "context: keys and values of ", options.context, " tokens take ",
      FormatBytes(bytes), " in ", DTypeName(layout.dtype), ", and ",
      FormatBytes(available), " of memory are free; use a shorter context",
      layout.dtype == DType::kI8 ? "" : " or an int8 KV cache"));
}

std::vector<int32_t> EndOfTextIds(const DecoderConfig& config,
                                  const Tokenizer* tokenizer) {
  if (!config.eos_ids.empty()) return config.eos_ids;
  if (tokenizer == nullptr || !tokenizer->eos_id().has_value()) return {};
  return {*tokenizer->eos_id()};
}

std::unique_ptr<ThreadPool> MakePool(const EngineOptions& options) {
  return std::make_unique<ThreadPool>(options.threads > 0 ? options.threads
                                                          : AvailableCores());
}

}  // namespace

struct Engine::Parts {
  absl::Time start = absl::Now();
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Tokenizer> tokenizer;
  // Of the weights, what the system counts as free although the engine needs
  // it: pages of a mapped file.
  int64_t mapped_bytes = 0;
  // Set by Finish.
  std::string path;
  int64_t context = 0;
  int64_t prefill_chunk = 0;
  KvLayout kv_layout;
  int64_t kv_bytes = 0;
};

Engine::Engine(Parts parts)
    : path_(std::move(parts.path)),
      context_(parts.context),
      prefill_chunk_(parts.prefill_chunk),
      eos_ids_(EndOfTextIds(parts.decoder->config(), parts.tokenizer.get())),
      load_time_(absl::Now() - parts.start),
      pool_(std::move(parts.pool)),
      decoder_(std::move(parts.decoder)),
      tokenizer_(std::move(parts.tokenizer)),
      kv_pool_(parts.kv_layout, parts.kv_bytes) {}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Open(
    const EngineOptions& options) {
  Parts parts;
  absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint(options.model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  if (options.warn && checkpoint->quantized != nullptr) {
    for (const std::string& warning : checkpoint->quantized->warnings) {
      options.warn(warning);
    }
  }
  // Before the weights are read, which takes longer than any other error.
  status = ResolveContext(options, checkpoint->config).status();
  if (!status.ok()) return status;
  status = CheckWeightsOption(options, *checkpoint);
  if (!status.ok()) return status;
  status = CheckWeightsFit(
      *checkpoint, options.weights,
      options.memory_limit > 0 ? options.memory_limit : AvailableMemoryBytes());
  if (!status.ok()) return status;

  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadTokenizer(*checkpoint);
  if (!tokenizer.ok()) return tokenizer.status();
  parts.tokenizer = *std::move(tokenizer);
  parts.pool = MakePool(options);
  DecoderOptions decoder_options;
  decoder_options.weights = options.weights;
  decoder_options.activations = options.activations;
  decoder_options.progress = options.load_progress;
  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Load(*checkpoint, decoder_options, *parts.pool);
  if (!decoder.ok()) return decoder.status();
  parts.decoder = *std::move(decoder);
  if (checkpoint->packed != nullptr) {
    parts.mapped_bytes = static_cast<int64_t>(parts.decoder->weight_bytes());
  }
  return Finish(options, std::move(parts));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, std::unique_ptr<Decoder> decoder,
    std::unique_ptr<Tokenizer> tokenizer) {
  const absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  Parts parts;
  parts.decoder = std::move(decoder);
  parts.tokenizer = std::move(tokenizer);
  parts.pool = MakePool(options);
  return Finish(options, std::move(parts));
}

// Sizes the cache for keys and values and puts the engine together.
absl::StatusOr<std::unique_ptr<Engine>> Engine::Finish(
    const EngineOptions& options, Parts parts) {
  const Decoder& decoder = *parts.decoder;
  const absl::StatusOr<int64_t> context =
      ResolveContext(options, decoder.config());
  if (!context.ok()) return context.status();
  parts.path = options.model_path;
  parts.context = *context;
  parts.prefill_chunk =
      options.prefill_chunk > 0 ? options.prefill_chunk : kDefaultPrefillChunk;
  const DType kv_cache = decoder.weights().has_integer_matrix()
                             ? options.kv_cache.value_or(DType::kI8)
                             : options.kv_cache.value_or(DType::kF32);
  parts.kv_layout = MakeKvLayout(decoder.config(), kv_cache);
  const int64_t left =
      options.memory_limit > 0
          ? options.memory_limit - static_cast<int64_t>(decoder.weight_bytes())
          : AvailableMemoryBytes() - parts.mapped_bytes;
  parts.kv_bytes = static_cast<int64_t>(
      static_cast<double>(std::max<int64_t>(0, left)) * kKvShareOfMemory);
  const absl::Status fits =
      CheckCacheFits(options, parts.kv_layout, parts.kv_bytes);
  if (!fits.ok()) return fits;
  return std::unique_ptr<Engine>(new Engine(std::move(parts)));
}

absl::StatusOr<std::unique_ptr<Sequence>> Engine::NewSequence() {
  return std::make_unique<Sequence>(kv_pool_);
}

absl::Status Engine::CheckTokens(const Sequence& sequence,
                                 absl::Span<const int32_t> tokens) const {
  if (tokens.empty()) {
    return absl::InvalidArgumentError(
        "there are no tokens to read: the prompt is empty");
  }
  const int64_t room = context_ - sequence.position();
  if (static_cast<int64_t>(tokens.size()) > room) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokens.size(), " tokens do not fit into the context of ",
                     context_, " tokens, of which ", sequence.position(),
                     " are taken; shorten the prompt"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "token ", i, " has id ", tokens[i],
        ", which is not in the model's vocabulary of ", vocabulary()));
  }
  return absl::OkStatus();
}

MatrixView<float> Engine::ChunkLogits(int64_t rows) {
  const size_t wanted = static_cast<size_t>(rows * vocabulary());
  if (chunk_logits_.size() < wanted) chunk_logits_ = Array<float>(wanted);
  return MatrixView<float>(chunk_logits_.data(), rows, vocabulary());
}

// Consecutive tokens of a prompt that are read in one step.
struct Engine::Chunk {
  absl::Span<const int32_t> tokens;
  bool all_logits = false;
  int64_t end_of_prompt = 0;  // the position behind the prompt's last token
};

absl::Status Engine::RunChunk(Sequence& sequence, const Chunk& chunk,
                              MatrixView<float> logits) {
  const int64_t count = static_cast<int64_t>(chunk.tokens.size());
  absl::Status status = sequence.Reserve(count);
  if (!status.ok()) return status;
  SequenceSlice slice;
  slice.tokens = chunk.tokens;
  slice.first_position = sequence.position();
  slice.layers = sequence.layers();
  slice.all_logits = chunk.all_logits;
  slice.length = chunk.end_of_prompt;
  status =
      decoder_->Forward(absl::MakeConstSpan(&slice, 1), work_, logits, *pool_);
  if (status.ok()) sequence.Advance(count);
  return status;
}

absl::Status Engine::Prefill(Sequence& sequence,
                             absl::Span<const int32_t> tokens,
                             absl::Span<float> logits,
                             const PrefillOptions& options) {
  absl::Status status = CheckTokens(sequence, tokens);
  if (!status.ok()) return status;
  if (!logits.empty() && static_cast<int64_t>(logits.size()) != vocabulary()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "logits has room for ", logits.size(), " values, not ", vocabulary()));
  }
  // Every chunk yields the logits of its last token; the last chunk's count.
  const MatrixView<float> row =
      logits.empty() ? ChunkLogits(1)
                     : MatrixView<float>(logits.data(), 1, vocabulary());
  const int64_t total = static_cast<int64_t>(tokens.size());
  Chunk chunk;
  chunk.end_of_prompt = sequence.position() + total;
  for (int64_t done = 0; done < total;) {
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError("cancelled while reading the prompt");
    }
    const int64_t count = std::min(prefill_chunk_, total - done);
    chunk.tokens = tokens.subspan(done, count);
    status = RunChunk(sequence, chunk, row);
    if (!status.ok()) return status;
    done += count;
    if (options.progress) options.progress(done, total);
  }
  return absl::OkStatus();
}

absl::Status Engine::PrefillWithLogits(Sequence& sequence,
                                       absl::Span<const int32_t> tokens,
                                       int64_t first, LogitsSink sink,
                                       const PrefillOptions& options) {
  absl::Status status = CheckTokens(sequence, tokens);
  if (!status.ok()) return status;
  const int64_t total = static_cast<int64_t>(tokens.size());
  if (first < 0 || first >= total) {
    return absl::InvalidArgumentError(
        absl::StrCat("logits are wanted from token ", first, " of ", total));
  }
  const int64_t start = sequence.position();
  const int64_t max_rows =
      std::clamp<int64_t>(kMaxChunkLogits / vocabulary(), 1, prefill_chunk_);
  Chunk chunk;
  chunk.end_of_prompt = start + total;
  for (int64_t done = 0; done < total;) {
    if (options.cancelled && options.cancelled()) {
      return absl::CancelledError("cancelled while reading the tokens");
    }
    const bool wanted = done >= first;
    const int64_t count = wanted ? std::min(max_rows, total - done)
                                 : std::min(prefill_chunk_, first - done);
    const MatrixView<float> logits = ChunkLogits(wanted ? count : 1);
    chunk.tokens = tokens.subspan(done, count);
    chunk.all_logits = wanted;
    status = RunChunk(sequence, chunk, logits);
    if (status.ok() && wanted) status = sink(start + done, logits);
    if (!status.ok()) return status;
    done += count;
    if (options.progress) options.progress(done, total);
  }
  return absl::OkStatus();
}

absl::Status Engine::PrefillBatch(absl::Span<const PrefillPart> parts,
                                  MatrixView<float> logits) {
  for (const PrefillPart& part : parts) {
    absl::Status status = CheckTokens(*part.sequence, part.tokens);
    if (!status.ok()) return status;
  }
  return RunParts(parts, logits);
}

absl::Status Engine::Decode(Sequence& sequence, int32_t token,
                            absl::Span<float> logits) {
  Sequence* const one = &sequence;
  return DecodeBatch(
      absl::MakeConstSpan(&one, 1), absl::MakeConstSpan(&token, 1),
      MatrixView<float>(logits.data(), 1, static_cast<int64_t>(logits.size())));
}

absl::Status Engine::CheckBatch(absl::Span<Sequence* const> sequences,
                                absl::Span<const int32_t> tokens,
                                MatrixView<float> logits) const {
  if (sequences.empty() || sequences.size() != tokens.size() ||
      logits.rows != static_cast<int64_t>(tokens.size()) ||
      logits.cols != vocabulary()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a batch of ", sequences.size(), " sequences has ",
                     tokens.size(), " tokens and logits [", logits.rows, ", ",
                     logits.cols, "], where the vocabulary is ", vocabulary()));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    absl::Status status = CheckTokens(*sequences[i], tokens.subspan(i, 1));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Engine::DecodeBatch(absl::Span<Sequence* const> sequences,
                                 absl::Span<const int32_t> tokens,
                                 MatrixView<float> logits) {
  absl::Status status = CheckBatch(sequences, tokens, logits);
  if (!status.ok()) return status;
  parts_.clear();
  for (size_t i = 0; i < tokens.size(); ++i) {
    PrefillPart part;
    part.sequence = sequences[i];
    part.tokens = tokens.subspan(i, 1);
    parts_.push_back(part);
  }
  return RunParts(parts_, logits);
}

// One forward pass over parts whose tokens were checked.
absl::Status Engine::RunParts(absl::Span<const PrefillPart> parts,
                              MatrixView<float> logits) {
  // Schedule: room for all tokens.
  slices_.clear();
  for (const PrefillPart& part : parts) {
    const absl::Status status =
        part.sequence->Reserve(static_cast<int64_t>(part.tokens.size()));
    if (!status.ok()) return status;
    SequenceSlice slice;
    slice.tokens = part.tokens;
    slice.first_position = part.sequence->position();
    slice.layers = part.sequence->layers();
    slice.last_logits = part.last_logits;
    slice.length = part.length;
    slices_.push_back(slice);
  }
  // Run.
  const absl::Status status = decoder_->Forward(slices_, work_, logits, *pool_);
  if (!status.ok()) return status;
  // Post-process.
  for (const PrefillPart& part : parts) {
    part.sequence->Advance(static_cast<int64_t>(part.tokens.size()));
  }
  return absl::OkStatus();
}

}  // namespace nibble
