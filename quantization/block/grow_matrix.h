// A matrix whose memory is kept when it shrinks: what is filled again and again
// with about as many rows.
//
//   GrowMatrix<float> normed;
//   MatrixView<float> rows = normed.Resize(tokens, hidden);  // unspecified
#ifndef NIBBLE_QUANTIZATION_BLOCK_GROW_MATRIX_H_
#define NIBBLE_QUANTIZATION_BLOCK_GROW_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

template <class T>
class GrowMatrix {
 public:
  MatrixView<T> Resize(int64_t rows, int64_t cols) {
    const size_t size = static_cast<size_t>(rows * cols);
    if (size > memory_.size()) {
      memory_ = Array<T>();  // not both at once
      memory_ = Array<T>(size);
    }
    rows_ = rows;
    cols_ = cols;
    return view();
  }

  MatrixView<T> view() { return MatrixView<T>(memory_.data(), rows_, cols_); }
  MatrixView<const T> view() const {
    return MatrixView<const T>(memory_.data(), rows_, cols_);
  }

 private:
  Array<T> memory_;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BLOCK_GROW_MATRIX_H_
