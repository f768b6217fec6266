#include "quantization/block/hidden_states.h"

#include <cstddef>

#include "absl/log/check.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/row_parallel.h"

namespace nibble {

HiddenStates::HiddenStates(int64_t windows, int64_t length, int64_t hidden)
    : windows_(windows),
      length_(length),
      hidden_(hidden),
      values_(static_cast<size_t>(windows * length * hidden)) {}

void HiddenStates::Load(int64_t first, MatrixView<float> x,
                        ThreadPool& pool) const {
  const absl::Span<const BF16> values = Rows(first, x.rows, x.cols);
  ForEachRow(x.rows, x.cols, pool, [&](int64_t row) {
    const size_t width = static_cast<size_t>(hidden_);
    BF16ToF32(values.subspan(static_cast<size_t>(row) * width, width),
              x.row_span(row));
  });
}

void HiddenStates::Store(int64_t first, MatrixView<const float> x,
                         ThreadPool& pool) {
  Rows(first, x.rows, x.cols);
  BF16* const values = values_.data() + first * length_ * hidden_;
  ForEachRow(x.rows, x.cols, pool, [&](int64_t row) {
    F32ToBF16(x.row_span(row), absl::MakeSpan(values + row * hidden_,
                                              static_cast<size_t>(hidden_)));
  });
}

absl::Span<const BF16> HiddenStates::Rows(int64_t first, int64_t rows,
                                          int64_t cols) const {
  CHECK_EQ(cols, hidden_);
  CHECK(rows > 0 && rows % length_ == 0);
  CHECK(first >= 0 && first + rows / length_ <= windows_);
  return values_.span().subspan(static_cast<size_t>(first * length_ * hidden_),
                                static_cast<size_t>(rows * hidden_));
}

}  // namespace nibble
