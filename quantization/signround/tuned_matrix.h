// A weight matrix whose rounding is trained: SignRound's variables and steps.
//
//   TunedMatrix matrix(weights, spec, pool);
//   matrix.Decode(values, pool);                // at first round to nearest
//   ... gradient of the loss by `values` ...
//   matrix.Descend({/*shift=*/163, /*range=*/0.005f}, gradient, pool);
//   Use(gradient);                              // now the new values
//   matrix.Encode(result, pool);
//
// Holds 4 bytes a weight (2 without momentum) and 16 a group beside the
// weights, which it borrows.
#ifndef NIBBLE_QUANTIZATION_SIGNROUND_TUNED_MATRIX_H_
#define NIBBLE_QUANTIZATION_SIGNROUND_TUNED_MATRIX_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "quantization/tuning/tuned_range.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class TunedMatrix {
 public:
  // weights: [outputs, inputs]. REQUIRES: CheckGridSpec(spec) is OK; weights
  // are finite, of magnitude at most kMaxRoundedWeight.
  TunedMatrix(MatrixView<const float> weights, const GridSpec& spec,
              ThreadPool& pool);

  // Starts from what another method made of the weights: its grids, and shifts
  // that just give its codes, or come within two steps of the weights. From
  // there ranges may also grow.
  // REQUIRES: `start` is of the same spec and size and has no input order.
  void StartFrom(const QuantizedMatrix& start, ThreadPool& pool);

  // What the weights are at present. [outputs, inputs]
  void Decode(MatrixView<float> values, ThreadPool& pool) const;
  QuantizedMatrix MakeResult() const {
    return QuantizedMatrix(spec_, weights_.rows, weights_.cols);
  }
  // REQUIRES: `result` is MakeResult()'s.
  void Encode(QuantizedMatrix& result, ThreadPool& pool) const;

  // Every variable moves by this much against the sign of its gradient.
  struct Step {
    int shift = 0;    // in 1 / kShiftOne of a step of the grid
    float range = 0;  // of the ratios, which stay within 0 and max_ratio_
    // Of the running mean that takes the gradient's place: its part of the past
    // steps. 0: the gradient itself.
    float momentum = 0;
  };
  // `values` holds dLoss/dValues and becomes the new values.
  void Descend(const Step& step, MatrixView<float> values, ThreadPool& pool);

 private:
  // body(row, group, first input, inputs), rows shared among threads.
  void ForEachGroup(ThreadPool& pool,
                    absl::FunctionRef<void(int64_t row, int64_t group,
                                           int64_t first, int64_t count)>
                        body) const;
  const TunedRange& range(int64_t row, int64_t group) const {
    return ranges_[static_cast<size_t>(row * spec_.groups(weights_.cols) +
                                       group)];
  }
  const int16_t* shifts(int64_t row, int64_t first) const {
    return shifts_.data() + row * weights_.cols + first;
  }

  const MatrixView<const float> weights_;
  const GridSpec spec_;
  float max_ratio_ = 1;
  Array<BF16> momentum_;      // [outputs, inputs], empty before it is used
  Array<int16_t> shifts_;     // [outputs, inputs]
  Array<TunedRange> ranges_;  // [outputs, groups]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_SIGNROUND_TUNED_MATRIX_H_
