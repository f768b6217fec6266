// One factor of a product as it lies in memory, whichever way round.
#ifndef NIBBLE_KERNELS_GEMM_FACTOR_H_
#define NIBBLE_KERNELS_GEMM_FACTOR_H_

#include <cstdint>

#include "tensor/view.h"

namespace nibble {

// `count` vectors of `depth` values, along which products are summed: rows of a
// first factor, columns of a second.
struct Factor {
  MatrixView<const float> values;  // [count, depth], or transposed
  bool transposed = false;         // [depth, count]

  int64_t count() const { return transposed ? values.cols : values.rows; }
  int64_t depth() const { return transposed ? values.rows : values.cols; }

  Factor Slice(int64_t first, int64_t size) const {
    return {transposed ? values.Columns(first, size) : values.Rows(first, size),
            transposed};
  }
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_GEMM_FACTOR_H_
