// Scales of a linear's inputs that its producer can take over.
//
//   for (const FoldablePair& pair : FoldablePairs(config)) {
//     std::vector<float> scales(pair.free_scales, 2.0f);
//     Fold(pair, scales, config, weights);  // the block computes the same
//   }
//
// Column j of every consumer is multiplied by s_j, and the producer of input j
// divided by it:
//
//   kAttentionNorm  the norm's weight and bias. It feeds qkv; under
//                   NormLayout::kShared the same s serve qkv and up.
//   kMlpNorm        the same before up, under NormLayout::kSeparate
//   kValueRows      the v rows of qkv and their bias. Attention averages values
//                   over positions channel by channel, so s passes through it.
//                   The query heads that share a KV head share its scales.
//   kUpRows         the up rows (not the gate's) and their bias, of a gated
//   MLP.
//                   Nothing passes through the activation of a plain one.
//
// Rows of one producer have scales of codes of their own, so that dividing a
// row does not change what rounding loses on it.
#ifndef NIBBLE_QUANTIZATION_FOLDING_FOLDING_H_
#define NIBBLE_QUANTIZATION_FOLDING_FOLDING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/decoder_config.h"
#include "quantization/block/block_weights.h"

namespace nibble {

enum class FoldInto { kAttentionNorm, kMlpNorm, kValueRows, kUpRows };

// "attention_norm", "mlp_norm", "v", "up": for reports.
const char* FoldIntoName(FoldInto producer);

struct FoldablePair {
  FoldInto producer = FoldInto::kAttentionNorm;
  std::vector<LinearId> consumers;  // all read the same inputs
  int64_t inputs = 0;               // of each consumer
  // Scales that may be chosen: `inputs`, or kv_dim for kValueRows.
  int64_t free_scales = 0;
  // [inputs]: which of them each input has.
  std::vector<int32_t> scale_of_input;
};

// In the order in which a block computes them.
std::vector<FoldablePair> FoldablePairs(const DecoderConfig& config);

// Changes `weights` so that the block computes the same function, up to
// rounding of f32. REQUIRES: `pair` is of FoldablePairs(config), `weights` is a
// block of that model, the scales [free_scales] are positive and finite.
void Fold(const FoldablePair& pair, absl::Span<const float> scales,
          const DecoderConfig& config, BlockWeights<float>& weights);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FOLDING_FOLDING_H_
