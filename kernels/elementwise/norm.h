// Root-mean-square and layer normalisation of one row or of many.
//
//   RmsNorm(x, weight, 1e-5f, out);                  // all [hidden]
//   LayerNormRows(x, weight, bias, 1e-5f, out, pool);  // x, out [rows, hidden]
//
//   RmsNorm    out = x / sqrt(mean(x^2) + eps) * weight      (arXiv 1910.07467)
//   LayerNorm  out = (x - mean) / sqrt(variance + eps) * weight + bias
//
// with the population variance, taken in a second pass over x - mean. Sums are
// f32 in a fixed order of lanes: the bits of a row do not depend on the rows or
// threads that share the call. `out` may be `x` itself.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_NORM_H_
#define NIBBLE_KERNELS_ELEMENTWISE_NORM_H_

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

// REQUIRES: x, weight and out have one size, at least 1.
void RmsNorm(absl::Span<const float> x, absl::Span<const float> weight,
             float eps, absl::Span<float> out);

// `bias` may be empty: none. REQUIRES: as RmsNorm.
void LayerNorm(absl::Span<const float> x, absl::Span<const float> weight,
               absl::Span<const float> bias, float eps, absl::Span<float> out);

// Row by row. x, out: [rows, hidden], any stride.
void RmsNormRows(MatrixView<const float> x, absl::Span<const float> weight,
                 float eps, MatrixView<float> out, ThreadPool& pool);
void LayerNormRows(MatrixView<const float> x, absl::Span<const float> weight,
                   absl::Span<const float> bias, float eps,
                   MatrixView<float> out, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_NORM_H_
