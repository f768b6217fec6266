#include "models/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/attention/alibi.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_view.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/norm.h"
#include "kernels/elementwise/rope.h"
#include "kernels/elementwise/row_parallel.h"
#include "kernels/matmul/matmul.h"
#include "kernels/thread_pool.h"
#include "models/checkpoint.h"
#include "models/decoder_config.h"
#include "models/decoder_weights.h"
#include "models/decoder_workspace.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// RopeTable's bound: above it float positions are no longer whole numbers.
constexpr int64_t kPositionLimit = int64_t{1} << 24;

std::vector<float> SlopesOf(const DecoderConfig& config) {
  if (!config.alibi) return {};
  std::vector<float> slopes = AlibiSlopes(config.heads);
  for (float& slope : slopes) slope *= config.alibi_scale;
  return slopes;
}

}  // namespace

struct Decoder::Pass {
  absl::Span<const SequenceSlice> batch;
  ForwardBuffers buffers;
  // [slices]; the KV view and nothing else changes from layer to layer.
  absl::Span<AttentionSequence> sequences;
  ThreadPool& pool;
};

Decoder::Decoder(DecoderWeights weights, Activations activations)
    : weights_(std::move(weights)),
      activations_(activations),
      rope_(RopeOf(weights_.config)),
      alibi_slopes_(SlopesOf(weights_.config)) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(
    const Checkpoint& checkpoint, const DecoderOptions& options,
    ThreadPool& pool) {
  if (checkpoint.packed == nullptr && options.weights.has_value() &&
      IsInteger(*options.weights)) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.path, ": cannot be held as ",
                     WeightFormatName(*options.weights),
                     " without being quantized first; supported: f32, bf16"));
  }
  absl::StatusOr<DecoderWeights> weights =
      LoadWeights(checkpoint, options.weights, options.progress, pool);
  if (!weights.ok()) return weights.status();
  return Create(*std::move(weights), options);
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(
    DecoderWeights weights, const DecoderOptions& options) {
  absl::Status valid = ValidateDecoderConfig(weights.config, "weights");
  if (valid.ok()) valid = CheckWeights(weights);
  if (!valid.ok()) return valid;
  const Activations activations = options.activations.value_or(
      weights.has_integer_matrix() ? Activations::kInt8 : Activations::kF32);
  if (activations == Activations::kBF16 && weights.all_f32()) {
    return absl::InvalidArgumentError(
        "bf16 activations need weights in bf16, int8 or int4");
  }
  return absl::WrapUnique(new Decoder(std::move(weights), activations));
}

absl::Status Decoder::Forward(absl::Span<const SequenceSlice> batch,
                              DecoderWorkspace& work, MatrixView<float> logits,
                              ThreadPool& pool) const {
  const absl::Status valid = CheckBatch(batch, logits);
  if (!valid.ok()) return valid;
  int64_t tokens = 0;
  for (const SequenceSlice& slice : batch) tokens += slice.count();
  const Pass pass = {batch, work.Views(config(), tokens, logits.rows),
                     work.Sequences(batch.size()), pool};

  Embed(pass);
  ComputeAngles(pass);
  for (int64_t layer = 0; layer < config().layers; ++layer) Layer(layer, pass);
  Head(pass, logits);
  return absl::OkStatus();
}

// x += Attention(norm(x)); x += Mlp(norm(x)), or both from the same x.
void Decoder::Layer(int64_t layer, const Pass& pass) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const ForwardBuffers& b = pass.buffers;
  Norm(weights.attention_norm, b.x, b.normed, pass.pool);
  if (config().residual == Residual::kSequential) {
    AddAttention(layer, pass);
    Norm(weights.mlp_norm, b.x, b.normed, pass.pool);
    AddMlp(weights, b.normed, pass);
    return;
  }
  if (config().norm_layout == NormLayout::kSeparate) {
    Norm(weights.mlp_norm, b.x, b.mlp_normed, pass.pool);
  }
  AddAttention(layer, pass);
  AddMlp(weights, b.mlp_normed, pass);
}

// Turns q and k of a sequence's new tokens, from row `first_row` of qkv on, and
// puts k and v into its pages.
void Decoder::RotateAndStore(const AttentionSequence& sequence,
                             int64_t first_row, const Pass& pass) const {
  const int64_t q_dim = config().q_dim();
  const int64_t kv_dim = config().kv_dim();
  const ForwardBuffers& b = pass.buffers;
  ForEachRow(sequence.q.rows, b.qkv.cols, pass.pool, [&](int64_t i) {
    const MatrixView<float> qkv = b.qkv.Rows(first_row + i, 1);
    ApplyRopeHeads(config().rope.style, b.cos.row_span(first_row + i),
                   b.sin.row_span(first_row + i),
                   qkv.Columns(0, q_dim + kv_dim).row_span(0),
                   config().head_dim);
    StoreKv(qkv.Columns(q_dim, kv_dim), qkv.Columns(q_dim + kv_dim, kv_dim),
            sequence.first_position + i, sequence.kv);
  });
}

// x += O * softmax(rope(q) rope(k)^T / sqrt(head_dim)) v, of normed.
void Decoder::AddAttention(int64_t layer, const Pass& pass) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const ForwardBuffers& b = pass.buffers;
  Project(weights.qkv, b.normed, /*accumulate=*/false, b.qkv, pass.pool);
  int64_t row = 0;
  for (size_t i = 0; i < pass.batch.size(); ++i) {
    const SequenceSlice& slice = pass.batch[i];
    AttentionSequence& sequence = pass.sequences[i];
    sequence.kv = slice.layers[static_cast<size_t>(layer)];
    sequence.first_position = slice.first_position;
    sequence.kv_length = slice.first_position + slice.count();
    sequence.q = b.qkv.Rows(row, slice.count()).Columns(0, config().q_dim());
    sequence.out = b.attended.Rows(row, slice.count());
    RotateAndStore(sequence, row, pass);
    row += slice.count();
  }
  AttentionParams params;
  params.heads = config().heads;
  params.scale = static_cast<float>(
      1.0 / std::sqrt(static_cast<double>(config().head_dim)));
  params.window = config().windows[static_cast<size_t>(layer)];
  params.alibi_slopes = alibi_slopes_.empty() ? nullptr : alibi_slopes_.data();
  Attention(pass.sequences, params, pass.pool);
  Project(weights.attention, b.attended, /*accumulate=*/true, b.x, pass.pool);
}

// x += Down * (act(Gate * normed) . (Up * normed)), or Down * act(Up * normed).
void Decoder::AddMlp(const LayerWeights& layer, MatrixView<const float> normed,
                     const Pass& pass) const {
  const MatrixView<float> inner = pass.buffers.up;
  MatMulOptions options = OptionsFor(layer.up);
  if (config().gated) options.gated = config().activation;
  MatMul(normed, layer.up.matrix, options, inner, pass.pool);
  if (!config().gated) ActivateRows(config().activation, inner, pass.pool);
  Project(layer.down, inner, /*accumulate=*/true, pass.buffers.x, pass.pool);
}

// x = the embedding's row of each token.
void Decoder::Embed(const Pass& pass) const {
  int64_t first_row = 0;
  for (const SequenceSlice& slice : pass.batch) {
    ForEachRow(slice.count(), config().hidden, pass.pool, [&](int64_t i) {
      const int32_t token = slice.tokens[static_cast<size_t>(i)];
      const absl::Span<float> x = pass.buffers.x.row_span(first_row + i);
      if (weights_.embedding.has_value()) {
        // CheckWeights has asked whether this can fail.
        CHECK_OK(ConvertRowToF32(*weights_.embedding, token, x));
      } else {
        DequantizeRow(weights_.head.matrix, token, x);
      }
    });
    first_row += slice.count();
  }
}

// The rotary factors of each token, shared by all layers.
void Decoder::ComputeAngles(const Pass& pass) const {
  if (config().rope.style == RopeStyle::kNone) return;
  int64_t first_row = 0;
  for (const SequenceSlice& slice : pass.batch) {
    const int64_t length =
        std::max(slice.length, slice.first_position + slice.count());
    // A sine and a cosine take as long as some 50 elements of ForEachRow's.
    ForEachRow(slice.count(), 100 * rope_.pairs(), pass.pool, [&](int64_t i) {
      rope_.Angles(slice.first_position + i, length,
                   pass.buffers.cos.row_span(first_row + i),
                   pass.buffers.sin.row_span(first_row + i));
    });
    first_row += slice.count();
  }
}

// logits = H * norm(x), for the wanted rows.
void Decoder::Head(const Pass& pass, MatrixView<float> logits) const {
  if (logits.rows == 0) return;
  const ForwardBuffers& b = pass.buffers;
  int64_t row = 0;
  int64_t wanted = 0;
  for (const SequenceSlice& slice : pass.batch) {
    const int64_t rows = slice.wanted_rows();
    Norm(weights_.final_norm, b.x.Rows(row + slice.count() - rows, rows),
         b.last.Rows(wanted, rows), pass.pool);
    row += slice.count();
    wanted += rows;
  }
  Project(weights_.head, b.last, /*accumulate=*/false, logits, pass.pool);
}

void Decoder::Norm(const NormWeights& norm, MatrixView<const float> x,
                   MatrixView<float> out, ThreadPool& pool) const {
  if (config().norm == NormKind::kRms) {
    RmsNormRows(x, norm.weight.span(), config().norm_eps, out, pool);
  } else {
    LayerNormRows(x, norm.weight.span(), norm.bias.span(), config().norm_eps,
                  out, pool);
  }
}

MatMulOptions Decoder::OptionsFor(const LinearWeights& linear) const {
  MatMulOptions options;
  options.bias = linear.bias.empty() ? nullptr : linear.bias.data();
  options.activations = activations_;
  if (!linear.input_order.empty()) {
    options.input_order = linear.input_order.data();
  }
  return options;
}

void Decoder::Project(const LinearWeights& linear, MatrixView<const float> x,
                      bool accumulate, MatrixView<float> y,
                      ThreadPool& pool) const {
  MatMulOptions options = OptionsFor(linear);
  options.accumulate = accumulate;
  MatMul(x, linear.matrix, options, y, pool);
}

absl::Status Decoder::CheckBatch(absl::Span<const SequenceSlice> batch,
                                 MatrixView<float> logits) const {
  if (batch.empty()) return absl::InvalidArgumentError("the batch is empty");
  int64_t wanted = 0;
  for (const SequenceSlice& slice : batch) {
    const absl::Status valid = CheckSlice(slice);
    if (!valid.ok()) return valid;
    wanted += slice.wanted_rows();
  }
  if (logits.rows != wanted || logits.cols != config().vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat(
        "logits are [", logits.rows, ", ", logits.cols, "]; the batch needs [",
        wanted, ", ", config().vocabulary, "]"));
  }
  return absl::OkStatus();
}

absl::Status Decoder::CheckSlice(const SequenceSlice& slice) const {
  if (slice.tokens.empty()) {
    return absl::InvalidArgumentError("a slice of the batch has no tokens");
  }
  for (const int32_t token : slice.tokens) {
    if (token < 0 || token >= config().vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is outside the vocabulary of ",
                       config().vocabulary));
    }
  }
  if (slice.last_logits < 0 || slice.last_logits > slice.count()) {
    return absl::InvalidArgumentError(
        absl::StrCat("logits of the last ", slice.last_logits,
                     " tokens of a slice of ", slice.count()));
  }
  if (slice.first_position < 0 ||
      slice.first_position > kPositionLimit - slice.count()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "positions from ", slice.first_position, " for ", slice.count(),
        " tokens; the largest position is ", kPositionLimit - 1));
  }
  const int64_t length = slice.first_position + slice.count();
  if (static_cast<int64_t>(slice.layers.size()) != config().layers) {
    return absl::InvalidArgumentError(absl::StrCat("KV views for ",
                                                   slice.layers.size(), " of ",
                                                   config().layers, " layers"));
  }
  for (const KvView& kv : slice.layers) {
    if (kv.kv_heads != config().kv_heads || kv.head_dim != config().head_dim ||
        kv.key_pages.size() != kv.value_pages.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("KV view of ", kv.kv_heads, " heads of ", kv.head_dim,
                       ", ", kv.key_pages.size(), " and ",
                       kv.value_pages.size(), " pages; the model has ",
                       config().kv_heads, " heads of ", config().head_dim));
    }
    if (kv.capacity() < length) {
      return absl::InvalidArgumentError(
          absl::StrCat("the KV cache has room for ", kv.capacity(),
                       " tokens; the sequence would have ", length));
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
