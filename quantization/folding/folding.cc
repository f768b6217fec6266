#include "quantization/folding/folding.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Every input has a scale of its own.
FoldablePair PlainPair(FoldInto producer, std::vector<LinearId> consumers,
                       int64_t inputs) {
  FoldablePair pair;
  pair.producer = producer;
  pair.consumers = std::move(consumers);
  pair.inputs = pair.free_scales = inputs;
  pair.scale_of_input.resize(static_cast<size_t>(inputs));
  std::iota(pair.scale_of_input.begin(), pair.scale_of_input.end(), 0);
  return pair;
}

FoldablePair ValuePair(const DecoderConfig& config) {
  FoldablePair pair =
      PlainPair(FoldInto::kValueRows, {LinearId::kAttention}, config.q_dim());
  pair.free_scales = config.kv_dim();
  const int64_t queries = config.heads / config.kv_heads;  // of a KV head
  for (int64_t j = 0; j < pair.inputs; ++j) {
    const int64_t kv_head = j / config.head_dim / queries;
    pair.scale_of_input[static_cast<size_t>(j)] =
        static_cast<int32_t>(kv_head * config.head_dim + j % config.head_dim);
  }
  return pair;
}

void DivideNorm(absl::Span<const float> scales, BlockNorm<float>& norm) {
  CHECK_EQ(norm.weight.size(), scales.size());
  for (size_t j = 0; j < scales.size(); ++j) norm.weight[j] /= scales[j];
  if (norm.bias.empty()) return;
  for (size_t j = 0; j < scales.size(); ++j) norm.bias[j] /= scales[j];
}

// Rows [first, first + scales.size()).
void DivideRows(absl::Span<const float> scales, int64_t first,
                BlockLinear<float>& linear) {
  const MatrixView<float> rows =
      linear.view().Rows(first, static_cast<int64_t>(scales.size()));
  for (int64_t i = 0; i < rows.rows; ++i) {
    const float scale = scales[static_cast<size_t>(i)];
    for (float& weight : rows.row_span(i)) weight /= scale;
    if (!linear.bias.empty()) {
      linear.bias[static_cast<size_t>(first + i)] /= scale;
    }
  }
}

void MultiplyColumns(absl::Span<const float> by_input,
                     BlockLinear<float>& linear) {
  CHECK_EQ(linear.inputs, static_cast<int64_t>(by_input.size()));
  for (int64_t i = 0; i < linear.outputs; ++i) {
    float* row = linear.view().row(i);
    for (size_t j = 0; j < by_input.size(); ++j) row[j] *= by_input[j];
  }
}

}  // namespace

const char* FoldIntoName(FoldInto producer) {
  switch (producer) {
    case FoldInto::kAttentionNorm:
      return "attention_norm";
    case FoldInto::kMlpNorm:
      return "mlp_norm";
    case FoldInto::kValueRows:
      return "v";
    case FoldInto::kUpRows:
      return "up";
  }
  return "";
}

std::vector<FoldablePair> FoldablePairs(const DecoderConfig& config) {
  std::vector<FoldablePair> pairs;
  if (config.norm_layout == NormLayout::kShared) {
    pairs.push_back(PlainPair(FoldInto::kAttentionNorm,
                              {LinearId::kQkv, LinearId::kUp}, config.hidden));
  } else {
    pairs.push_back(
        PlainPair(FoldInto::kAttentionNorm, {LinearId::kQkv}, config.hidden));
  }
  pairs.push_back(ValuePair(config));
  if (config.norm_layout == NormLayout::kSeparate) {
    pairs.push_back(
        PlainPair(FoldInto::kMlpNorm, {LinearId::kUp}, config.hidden));
  }
  if (config.gated) {
    pairs.push_back(
        PlainPair(FoldInto::kUpRows, {LinearId::kDown}, config.ffn));
  }
  return pairs;
}

void Fold(const FoldablePair& pair, absl::Span<const float> scales,
          const DecoderConfig& config, BlockWeights<float>& weights) {
  CHECK_EQ(static_cast<int64_t>(scales.size()), pair.free_scales);
  for (const float scale : scales) {
    CHECK(std::isfinite(scale) && scale > 0) << scale;
  }
  switch (pair.producer) {
    case FoldInto::kAttentionNorm:
      DivideNorm(scales, weights.attention_norm);
      break;
    case FoldInto::kMlpNorm:
      DivideNorm(scales, weights.mlp_norm);
      break;
    case FoldInto::kValueRows:
      DivideRows(scales, config.q_dim() + config.kv_dim(),
                 weights[LinearId::kQkv]);
      break;
    case FoldInto::kUpRows:
      DivideRows(scales, config.ffn, weights[LinearId::kUp]);
      break;
  }
  std::vector<float> by_input(static_cast<size_t>(pair.inputs));
  for (size_t j = 0; j < by_input.size(); ++j) {
    by_input[j] = scales[static_cast<size_t>(pair.scale_of_input[j])];
  }
  for (const LinearId id : pair.consumers) {
    MultiplyColumns(by_input, weights[id]);
  }
}

}  // namespace nibble
