// Rotary position embedding (Su et al., arXiv 2104.09864).
//
//   RopeTable table(config);
//   table.Angles(position, current_length, cos, sin);    // [rotary_dims / 2]
//   ApplyRope(config.style, cos, sin, head);             // head: [head_dim]
//
// Pair j of the first rotary_dims dimensions of a head turns by the angle
// position * f[j]; the other dimensions pass through:
//
//   a' = a cos - b sin,  b' = a sin + b cos
//
//   kHalf         a = x[j],      b = x[j + rotary_dims / 2]
//   kInterleaved  a = x[2 j],    b = x[2 j + 1]
//
// Frequencies, d = rotary_dims, f[j] = theta^(-2j/d) before scaling:
//
//   kLinear   f / factor
//   kDynamic  theta' = theta (factor L / M - (factor - 1))^(d / (d - 2)), with
//             M = max_positions and L = max(current length, M)
//   kLlama3   by wavelength w = 2 pi / f and O = original_max_positions: kept
//   if
//             w < O / high_freq_factor, f / factor if w > O / low_freq_factor,
//             else blended linearly in O / w
//   kYarn     (arXiv 2309.00071) ramps from f to f / factor between the
//             dimensions that turn beta_fast and beta_slow times in O; cos and
//             sin are multiplied by attention_factor
//   divisors  f[j] / frequency_divisors[j] (GGUF's rope_freqs), after the above
//
// Rounding. Checkpoints were trained with f32 tables, and at long positions the
// rounding of f[j] shows (position 10^4 times 2^-24 is 6e-4 radian). So f[j]
// and the product with the position are rounded to f32 at each step that
// transformers rounds, which is closer to its results than exact arithmetic;
// cos and sin of the rounded angle are then computed in double.
//
// kDynamic: the angles depend on the length at the time of the call. Keys that
// are cached keep the angles they were written with, as in transformers.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ROPE_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

enum class RopeStyle { kNone, kHalf, kInterleaved };

struct RopeScaling {
  enum Type { kNone, kLinear, kDynamic, kLlama3, kYarn };

  Type type = kNone;
  float factor = 1.0f;            // > 0
  float low_freq_factor = 1.0f;   // kLlama3
  float high_freq_factor = 4.0f;  // kLlama3; > low_freq_factor
  float beta_fast = 32.0f;        // kYarn
  float beta_slow = 1.0f;         // kYarn
  float attention_factor = 0.0f;  // kYarn; 0: 0.1 ln(factor) + 1
  // kLlama3, kYarn: the length before extension; 0: max_positions.
  int64_t original_max_positions = 0;
};

struct RopeConfig {
  RopeStyle style = RopeStyle::kHalf;
  int64_t rotary_dims = 0;  // even
  double theta = 10000.0;   // > 0
  int64_t max_positions = 0;
  RopeScaling scaling;
  // [rotary_dims / 2] or empty. Copied by RopeTable.
  absl::Span<const float> frequency_divisors;
};

class RopeTable {
 public:
  // With kNone the table is empty. REQUIRES: a config as described above, with
  // rotary_dims > 2 for kDynamic, original_max_positions or max_positions > 0
  // where the scaling uses it.
  explicit RopeTable(const RopeConfig& config);

  int64_t pairs() const { return static_cast<int64_t>(frequencies_.size()); }

  // Radians per position, [pairs()], for sequences no longer than
  // max_positions.
  absl::Span<const float> frequencies() const { return frequencies_; }
  // What cos and sin are multiplied by; 1 except with kYarn.
  float attention_factor() const { return attention_factor_; }

  // Factors of one position. current_length, the tokens in the sequence after
  // this call, matters to kDynamic only. Thread-safe.
  // REQUIRES: cos and sin have pairs() elements; 0 <= position < 2^24.
  void Angles(int64_t position, int64_t current_length, absl::Span<float> cos,
              absl::Span<float> sin) const;

 private:
  float DynamicTheta(int64_t length) const;

  RopeConfig config_;
  std::vector<float> divisors_;     // [pairs] or empty
  std::vector<float> frequencies_;  // [pairs]
  float attention_factor_ = 1.0f;
};

// Rotates one head in place. head: [>= 2 * cos.size()]. kNone does nothing.
void ApplyRope(RopeStyle style, absl::Span<const float> cos,
               absl::Span<const float> sin, float* head);

// Rotates every head of one row in place.
// heads: [heads * head_dim]. REQUIRES: cos and sin have one size, at most
// head_dim / 2, and heads.size() is a multiple of head_dim.
void ApplyRopeHeads(RopeStyle style, absl::Span<const float> cos,
                    absl::Span<const float> sin, absl::Span<float> heads,
                    int64_t head_dim);

// Rotates every head of every row in place.
// cos, sin: [tokens, rotary_dims / 2]; x: [tokens, heads * head_dim], any
// stride. REQUIRES: x.cols is a multiple of head_dim, rotary_dims <= head_dim.
void ApplyRopeRows(RopeStyle style, MatrixView<const float> cos,
                   MatrixView<const float> sin, MatrixView<float> x,
                   int64_t head_dim, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ROPE_H_
