// A weight matrix rounded to nearest with a scale on each input: what TEQ
// trains.
//
//   ScaledMatrix matrix(weights, spec);
//   matrix.Round(scales, pool);                 // [inputs]
//   Use(matrix.values());                       // round(W a) / a
//   ... gradient of the loss by the values ...
//   matrix.AddSlopes(gradient, slopes, pool);   // by log(scales)
//
// The matrix keeps its inputs: dividing them by the scales and multiplying the
// weights comes to the same. Holds 4 bytes a weight beside the weights.
//
// Where GPTQ will round, weights have moved when their turn comes, so that
// where they lie between two codes says nothing; and the inputs that follow
// make up for most of an error. With `residuals` r the values are what such
// errors come to, W_ij + u_ij step_g r_j / a_j, u_ij fixed numbers spread
// evenly from -1/2 to 1/2: the loss follows the scales smoothly. Steps are
// those of neighbours' groups, also where act-order will sort the inputs.
#ifndef NIBBLE_QUANTIZATION_TEQ_SCALED_MATRIX_H_
#define NIBBLE_QUANTIZATION_TEQ_SCALED_MATRIX_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class ScaledMatrix {
 public:
  // weights: [outputs, inputs], borrowed. residuals: [inputs], from 0 to 1,
  // borrowed; or empty: values are the nearest codes'. REQUIRES: as
  // TunedMatrix.
  ScaledMatrix(MatrixView<const float> weights, const GridSpec& spec,
               absl::Span<const float> residuals = {});

  // scales: [inputs], above 0.
  void Round(absl::Span<const float> scales, ThreadPool& pool);
  // As Round left them. [outputs, inputs]
  MatrixView<const float> values() const {
    return MatrixView<const float>(values_.data(), weights_.rows,
                                   weights_.cols);
  }

  // slopes[j] += dLoss/d(log scale j), rounding residuals taken as constant in
  // steps of the grid: sum_i G_ij (W_ij - value_ij), as the paper has it, and
  // what the steps of the groups change whose extremes lie at j.
  void AddSlopes(MatrixView<const float> gradient, absl::Span<double> slopes,
                 ThreadPool& pool) const;

 private:
  // values[j] = scaled[j] and the error there. index: of the group's first
  // weight in the matrix.
  void AddErrors(const GroupGrid& grid, absl::Span<const float> scaled,
                 int64_t index, float* values) const;
  // For the group at w = weights_[row, first].
  void AddStepSlopes(const float* w, int64_t first, int64_t count, float error,
                     float* slopes) const;

  const MatrixView<const float> weights_;
  const GridSpec spec_;
  const absl::Span<const float> residuals_;
  std::vector<float> scales_;  // [inputs], of the values
  Array<float> values_;        // [outputs, inputs]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_TEQ_SCALED_MATRIX_H_
