// Sharing the rows of an elementwise operation among threads.
#ifndef NIBBLE_KERNELS_ELEMENTWISE_ROW_PARALLEL_H_
#define NIBBLE_KERNELS_ELEMENTWISE_ROW_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "kernels/thread_pool.h"

namespace nibble {

// Calls body(row) for rows [0, rows), on the pool's threads if it is worth
// waking them: a parallel region costs about 2 us, in which one core passes
// over some 2^14 elements (read and written, from L2). At twice that two
// threads break even.
inline void ForEachRow(int64_t rows, int64_t cols, ThreadPool& pool,
                       absl::FunctionRef<void(int64_t row)> body) {
  constexpr int64_t kMinElements = int64_t{1} << 15;
  if (rows == 1 || rows * cols < kMinElements) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.ParallelFor(rows, [body](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ELEMENTWISE_ROW_PARALLEL_H_
