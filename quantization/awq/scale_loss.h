// What rounding costs a linear's output, from the second moments of its inputs.
//
//   ScaleLoss loss({weights, gram, spec}, /*max_rows=*/1024);
//   double identity = loss.Of(ones, pool);
//   double scaled = loss.Of(scales, pool);
//
// Columns are multiplied by `scales`, rounded to nearest, and divided by them:
// with dW = Q(W s) / s - W, the loss is tr(dW G dW^T), G the mean of x x^T, the
// squared error of all outputs together on an average calibration token. It
// costs outputs x inputs^2 products however many tokens there were.
//
// Where GPTQ will round, weights have moved when their turn comes, so their
// errors are anywhere within a step of the grid; the inputs that follow make up
// for most of an error, and what it costs is its square times the variance of
// the input that those do not explain. With these variances v the loss is
// the sum of step_ig^2 / 12 v_j / s_j^2 over rows i and inputs j, in groups g.
#ifndef NIBBLE_QUANTIZATION_AWQ_SCALE_LOSS_H_
#define NIBBLE_QUANTIZATION_AWQ_SCALE_LOSS_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

struct RoundedLinear {
  MatrixView<const float> weights;  // [outputs, inputs]
  MatrixView<const float> gram;     // [inputs, inputs], mean of x x^T
  GridSpec spec;
  absl::Span<const double> variances = {};  // [inputs], see above, or empty

  // What a squared error at an input costs when no other is made.
  double importance(int64_t input) const {
    return variances.empty() ? gram.row(input)[input]
                             : variances[static_cast<size_t>(input)];
  }
};

class ScaleLoss {
 public:
  // Looks at no more than `max_rows` rows, spread evenly, and scales the sum up
  // to all of them. Borrows what `linear` views.
  ScaleLoss(const RoundedLinear& linear, int64_t max_rows);

  // scales: [inputs], positive and finite. Infinite where a scaled weight
  // cannot be rounded. Does not depend on the number of threads.
  double Of(absl::Span<const float> scales, ThreadPool& pool);

  const RoundedLinear& linear() const { return linear_; }
  // The rows looked at: row_of(0) < ... < row_of(rows() - 1).
  int64_t rows() const { return rows_; }
  int64_t row_of(int64_t sample) const {
    return sample * linear_.weights.rows / rows_;
  }

 private:
  // Sums over rows [first, first + count).
  double OfRows(int64_t first, int64_t count, absl::Span<const float> scales,
                ThreadPool& pool);
  // tr(dW G dW^T) of the scaled rows; and the sum over their groups' steps.
  double OfErrors(int64_t first, const QuantizedMatrix& rounded,
                  absl::Span<const float> scales, ThreadPool& pool);
  double OfSteps(const QuantizedMatrix& rounded, absl::Span<const float> scales,
                 ThreadPool& pool);

  const RoundedLinear linear_;
  const int64_t rows_;
  // [chunk, inputs] each
  Array<float> scaled_;
  Array<float> error_;
  Array<float> product_;
  Array<double> sums_;  // [chunk]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_AWQ_SCALE_LOSS_H_
