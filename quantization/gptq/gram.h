// Second moments of a linear's inputs over the calibration tokens.
//
//   Gram gram(inputs);
//   for (...) gram.Add(x, pool);          // x: [tokens, inputs]
//   gram.Finish(pool);
//   gram.mean();                          // [inputs, inputs], mean of x x^T
//
// Products are summed in f32 within a call and in doubles over calls, on one
// triangle: 4 bytes for each element of the matrix, and as many for the f32
// matrix that Finish makes of it before it frees the sums. For inputs = 11008
// that is 0.6 GB, then 1.1 GB, then 0.5 GB.
//
// Callers pass real tokens only: padding would count as inputs of zero.
#ifndef NIBBLE_QUANTIZATION_GPTQ_GRAM_H_
#define NIBBLE_QUANTIZATION_GPTQ_GRAM_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

class Gram {
 public:
  explicit Gram(int64_t inputs);

  int64_t inputs() const { return inputs_; }
  int64_t tokens() const { return tokens_; }

  // REQUIRES, of this and the next: before Finish, and never both of them on
  // one Gram.
  void Add(MatrixView<const float> x, ThreadPool& pool);
  // Also sums (x_float - x) x^T, what GPTAQ's correction needs, where x is what
  // the linear gets behind quantized blocks and x_float what it got in the
  // float model. Both: [tokens, inputs]. In f32, 4 bytes an element.
  void AddPair(MatrixView<const float> x, MatrixView<const float> x_float,
               ThreadPool& pool);
  void Finish(ThreadPool& pool);

  // After Finish. Of no tokens: zeros.
  MatrixView<const float> mean() const;  // [inputs, inputs], of x x^T
  absl::Span<const float> mean_squares() const { return mean_squares_; }
  absl::Span<const double> mean_absolute() const { return mean_absolute_; }
  // [inputs, inputs]: of (x_float - x) x^T; no rows without AddPair.
  MatrixView<const float> mean_cross() const;
  // No input was infinite or NaN, nor did a product overflow.
  bool is_finite() const { return is_finite_; }

 private:
  void AddProducts(MatrixView<const float> x, ThreadPool& pool);

  // The part of the upper triangle in columns [first, first + width), rows from
  // 0 to first + width.
  struct Panel {
    int64_t first = 0;
    int64_t width = 0;
    Array<double> sums;  // [first + width, width]

    MatrixView<double> Above();     // rows [0, first)
    MatrixView<double> Diagonal();  // rows [first, first + width)
  };

  const int64_t inputs_;
  int64_t tokens_ = 0;
  bool is_finite_ = true;
  std::vector<Panel> panels_;          // until Finish
  std::vector<double> mean_absolute_;  // [inputs], sums until Finish
  Array<float> cross_;                 // [inputs, inputs] or empty
  Array<float> mean_;                  // [inputs, inputs], from Finish on
  std::vector<float> mean_squares_;    // [inputs], from Finish on
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_GRAM_H_
