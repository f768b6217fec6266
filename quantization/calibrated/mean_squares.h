// Means of the squared inputs of a matrix: what an error in each of its
// columns counts, were the inputs uncorrelated.
//
//   MeanSquares squares(inputs);
//   squares.Add(x, pool);             // x: [tokens, inputs]
//   squares.Values();                 // [inputs]
#ifndef NIBBLE_QUANTIZATION_CALIBRATED_MEAN_SQUARES_H_
#define NIBBLE_QUANTIZATION_CALIBRATED_MEAN_SQUARES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

class MeanSquares {
 public:
  explicit MeanSquares(int64_t inputs) : sums_(static_cast<size_t>(inputs)) {}

  // Sums are in double, each of one thread: the same for any number of them.
  void Add(MatrixView<const float> x, ThreadPool& pool) {
    pool.ParallelFor(x.cols, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = 0; row < x.rows; ++row) {
        const float* values = x.row(row);
        for (int64_t j = begin; j < end; ++j) {
          const double value = values[j];
          sums_[static_cast<size_t>(j)] += value * value;
        }
      }
    });
    tokens_ += x.rows;
  }

  // REQUIRES: some rows were added.
  std::vector<float> Values() const {
    std::vector<float> means(sums_.size());
    for (size_t j = 0; j < means.size(); ++j) {
      means[j] = static_cast<float>(sums_[j] / static_cast<double>(tokens_));
    }
    return means;
  }

 private:
  std::vector<double> sums_;  // [inputs]
  int64_t tokens_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_CALIBRATED_MEAN_SQUARES_H_
