// Gradients of what kernels/elementwise computes, and of attention's softmax.
//
//   ActivateGradient(Activation::kGelu, x, dy, dx);
//   NormGradient({/*centred=*/false, 1e-5f}, x, weight, dy, base, dx);
//
// dy is the loss's gradient by the operation's result, dx by its argument.
// With u = (x - mean) r and g = dy weight, where r = 1 / sqrt(variance + eps)
// (RMSNorm: mean 0, and mean(x^2) for the variance):
//
//   norm by x         dx = base + r (g - mean(g) - u mean(g u)); RMSNorm
//                     without mean(g)
//   norm by weight    dweight += dy u
//   activation        dx = dy act'(x)
//   gated             d_gate = dy up act'(gate), d_up = dy act(gate)
//   softmax           w = softmax(scale s + slope j);
//                     ds = scale w (dw - sum(w dw))
//
// Everything is f32, sums in a fixed order of lanes: the bits depend on the
// row and the ISA alone. Rows are the callers' to share among threads.
#ifndef NIBBLE_KERNELS_GRADIENT_GRADIENT_H_
#define NIBBLE_KERNELS_GRADIENT_GRADIENT_H_

#include "absl/types/span.h"
#include "kernels/elementwise/activation_type.h"

namespace nibble {

// REQUIRES, everywhere: the spans have one size, at least 1.

// dx may be dy.
void ActivateGradient(Activation activation, absl::Span<const float> x,
                      absl::Span<const float> dy, absl::Span<float> dx);
void GatedActivateGradient(Activation activation, absl::Span<const float> gate,
                           absl::Span<const float> up,
                           absl::Span<const float> dy, absl::Span<float> d_gate,
                           absl::Span<float> d_up);

struct NormOptions {
  bool centred = false;  // LayerNorm; else RMSNorm
  float eps = 0;
};

// dx may be base or dy.
void NormGradient(const NormOptions& norm, absl::Span<const float> x,
                  absl::Span<const float> weight, absl::Span<const float> dy,
                  absl::Span<const float> base, absl::Span<float> dx);
void NormWeightGradient(const NormOptions& norm, absl::Span<const float> x,
                        absl::Span<const float> dy, absl::Span<float> weight);

// scores[j] = softmax(scale * scores[j] + slope * j).
void AttentionWeights(float scale, float slope, absl::Span<float> scores);
// d_weights = the gradient by the scores before scaling.
void ScoreGradient(absl::Span<const float> weights, float scale,
                   absl::Span<float> d_weights);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GRADIENT_GRADIENT_H_
