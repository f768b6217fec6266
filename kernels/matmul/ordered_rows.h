// Activations whose inputs are put in the order of the weights on the way into
// a panel.
#ifndef NIBBLE_KERNELS_MATMUL_ORDERED_ROWS_H_
#define NIBBLE_KERNELS_MATMUL_ORDERED_ROWS_H_

#include <cstdint>

#include "tensor/view.h"

namespace nibble {

struct OrderedRows {
  // NOLINTNEXTLINE: implicit by intent
  OrderedRows(const MatrixView<const float>& x, const int32_t* order = nullptr)
      : x(x), order(order) {}

  // Inputs [begin, begin + count) of a row: where they lie, or gathered into
  // `buffer`, which holds `count` if there is an order.
  const float* Inputs(int64_t row, int64_t begin, int64_t count,
                      float* buffer) const {
    const float* in = x.row(row);
    if (order == nullptr) return in + begin;
    // Hardware fetches ahead only in sequence. 2048 inputs that are out of
    // cache took 0.80 ns each without this and 0.53 with it (Zen 5).
    if (begin == 0) {
      for (int64_t j = 0; j < x.cols; j += 16) __builtin_prefetch(in + j);
    }
    for (int64_t j = 0; j < count; ++j) buffer[j] = in[order[begin + j]];
    return buffer;
  }

  MatrixView<const float> x;  // [rows, inputs]
  const int32_t* order;       // [inputs]: input j is x[:, order[j]]; or none
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_MATMUL_ORDERED_ROWS_H_
