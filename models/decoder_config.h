// Everything that tells one decoder-only transformer from another, as plain
// numbers. A family file (models/families) fills it from a checkpoint; the
// decoder's single forward pass reads nothing else.
//
//   absl::StatusOr<Checkpoint> checkpoint = OpenCheckpoint("SmolLM2-135M");
//   const DecoderConfig& config = checkpoint->config;
//   size_t cache_bytes = 2 * config.layers * config.kv_dim() * sizeof(float);
//
// The shapes below use these words:
//   tokens      rows of a batch
//   q_dim       heads * head_dim; need not equal `hidden`
//   kv_dim      kv_heads * head_dim
#ifndef NIBBLE_MODELS_DECODER_CONFIG_H_
#define NIBBLE_MODELS_DECODER_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/elementwise/activation.h"
#include "kernels/elementwise/rope.h"

namespace nibble {

enum class NormKind {
  kRms,    // x * rsqrt(mean(x^2) + eps) * weight
  kLayer,  // (x - mean) * rsqrt(variance + eps) * weight + bias
};

enum class Residual {
  kSequential,  // x += Attention(norm(x)); x += Mlp(norm(x))
  kParallel,    // x += Attention(norm(x)) + Mlp(norm(x)), both from the same x
};

enum class NormLayout {
  kSeparate,  // attention and MLP each have a norm
  kShared,    // one norm feeds both; only with Residual::kParallel
};

struct DecoderConfig {
  // As the checkpoint names it: "llama", "mistral", "qwen2".
  std::string family;

  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads =
      0;  // divides heads; query head h reads h / (heads/kv_heads)
  int64_t head_dim = 0;
  int64_t ffn = 0;
  // Positions the model was made for. Longer sequences are the caller's risk.
  int64_t max_positions = 0;

  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  Residual residual = Residual::kSequential;
  NormLayout norm_layout = NormLayout::kSeparate;

  // rope.style kNone: no rotary embedding. rope.frequency_divisors stays empty
  // here; rope_divisors owns what RopeOf(config) lends to it.
  RopeConfig rope;
  std::vector<float> rope_divisors;  // [rotary_dims / 2] or empty

  // ALiBi adds slope[head] * alibi_scale * key position to the scaled scores.
  bool alibi = false;
  float alibi_scale = 1.0f;

  Activation activation = Activation::kSilu;
  bool gated = true;  // down(act(gate(x)) * up(x)), else down(act(up(x)))

  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool mlp_bias = false;
  bool head_bias = false;
  bool tied_head = false;  // the embedding is the output head

  // Attention window of each layer: key j is visible from i iff i - j < window.
  // 0: unlimited. [layers]
  std::vector<int64_t> windows;

  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;  // any of them ends the text; may be empty

  int64_t q_dim() const { return heads * head_dim; }
  int64_t kv_dim() const { return kv_heads * head_dim; }
  int64_t qkv_dim() const { return q_dim() + 2 * kv_dim(); }
};

// Bounds on what a checkpoint may claim. They keep every product of two sizes
// far inside int64 and are a few times what published models use.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
inline constexpr int64_t kMaxHidden = int64_t{1} << 20;
inline constexpr int64_t kMaxFfn = int64_t{1} << 22;
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxHeads = 65536;
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxPositions = int64_t{1} << 24;

// OK when the numbers fit together. `source` (a file name) opens the message.
absl::Status ValidateDecoderConfig(const DecoderConfig& config,
                                   const std::string& source);

// The rotary settings with the divisors filled in. `config` must outlive it.
RopeConfig RopeOf(const DecoderConfig& config);

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_CONFIG_H_
