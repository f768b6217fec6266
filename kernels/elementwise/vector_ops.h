// Sums and products of vectors, element by element.
//
//   AddInPlace(residual, x);              // x += residual, both [hidden]
//
// Each element is rounded once: the result does not depend on the ISA.
// REQUIRES, everywhere: the spans have one size; they are the same or disjoint.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_VECTOR_OPS_H_
#define NIBBLE_KERNELS_ELEMENTWISE_VECTOR_OPS_H_

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// x += y.
void AddInPlace(absl::Span<const float> y, absl::Span<float> x);

// x *= y.
void MultiplyInPlace(absl::Span<const float> y, absl::Span<float> x);

// x *= factor.
void ScaleInPlace(float factor, absl::Span<float> x);

// x += factor * y, with one rounding (fused).
void AddScaledInPlace(float factor, absl::Span<const float> y,
                      absl::Span<float> x);

// x += y, row by row, shared among threads; any strides.
void AddRowsInPlace(MatrixView<const float> y, MatrixView<float> x,
                    ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_VECTOR_OPS_H_
