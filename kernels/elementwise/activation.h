// Activation functions of feed-forward layers.
//
//   Activate(Activation::kGelu, x);                          // in place
//   GatedActivate(Activation::kSilu, gate, up, out);         // act(gate) * up
//
//   kSilu       x sigmoid(x)
//   kGelu       x Phi(x) = x (1 + erf(x / sqrt 2)) / 2
//   kGeluTanh   x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//   kQuickGelu  x sigmoid(1.702 x)
//
// Accuracy: see the table in activation_kernels.h. NaN gives NaN, +infinity
// gives +infinity, and -infinity gives NaN (it is infinity times zero).
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_H_

#include "absl/types/span.h"
#include "kernels/elementwise/activation_type.h"  // IWYU pragma: export
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// x = act(x).
void Activate(Activation activation, absl::Span<float> x);

// out = act(gate) * up. `out` may be `gate` or `up`.
// REQUIRES: the spans have one size.
void GatedActivate(Activation activation, absl::Span<const float> gate,
                   absl::Span<const float> up, absl::Span<float> out);

// The rows of a block on the calling thread; any strides.
void GatedActivateBlock(Activation activation, MatrixView<const float> gate,
                        MatrixView<const float> up, MatrixView<float> out);

// Row by row, shared among threads; any strides.
void ActivateRows(Activation activation, MatrixView<float> x, ThreadPool& pool);
void GatedActivateRows(Activation activation, MatrixView<const float> gate,
                       MatrixView<const float> up, MatrixView<float> out,
                       ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ACTIVATION_H_
