#include "kernels/gradient/gradient.h"

#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "kernels/elementwise/kernel_table.h"
#include "kernels/gradient/gradient_kernels.h"

namespace nibble {
namespace {

const GradientKernels& Kernels() {
  static const GradientKernels& kernels = SelectKernels(GradientTable());
  return kernels;
}

int64_t Size(absl::Span<const float> x) {
  return static_cast<int64_t>(x.size());
}

}  // namespace

void ActivateGradient(Activation activation, absl::Span<const float> x,
                      absl::Span<const float> dy, absl::Span<float> dx) {
  DCHECK(x.size() == dy.size() && x.size() == dx.size());
  Kernels().activate[static_cast<size_t>(activation)](x.data(), dy.data(),
                                                      Size(x), dx.data());
}

void GatedActivateGradient(Activation activation, absl::Span<const float> gate,
                           absl::Span<const float> up,
                           absl::Span<const float> dy, absl::Span<float> d_gate,
                           absl::Span<float> d_up) {
  DCHECK(gate.size() == up.size() && gate.size() == dy.size());
  DCHECK(gate.size() == d_gate.size() && gate.size() == d_up.size());
  Kernels().gated[static_cast<size_t>(activation)](gate.data(), up.data(),
                                                   dy.data(), Size(gate),
                                                   d_gate.data(), d_up.data());
}

void NormGradient(const NormOptions& norm, absl::Span<const float> x,
                  absl::Span<const float> weight, absl::Span<const float> dy,
                  absl::Span<const float> base, absl::Span<float> dx) {
  DCHECK(x.size() == weight.size() && x.size() == dy.size());
  DCHECK(x.size() == base.size() && x.size() == dx.size());
  Kernels().norm(
      {x.data(), weight.data(), dy.data(), Size(x), norm.eps, norm.centred},
      base.data(), dx.data());
}

void NormWeightGradient(const NormOptions& norm, absl::Span<const float> x,
                        absl::Span<const float> dy, absl::Span<float> weight) {
  DCHECK(x.size() == weight.size() && x.size() == dy.size());
  Kernels().norm_weight(
      {x.data(), nullptr, dy.data(), Size(x), norm.eps, norm.centred},
      weight.data());
}

void AttentionWeights(float scale, float slope, absl::Span<float> scores) {
  Kernels().attention_weights(scale, slope, Size(scores), scores.data());
}

void ScoreGradient(absl::Span<const float> weights, float scale,
                   absl::Span<float> d_weights) {
  DCHECK_EQ(weights.size(), d_weights.size());
  Kernels().score(weights.data(), scale, Size(weights), d_weights.data());
}

}  // namespace nibble
