#include "quantization/block/packed_linear.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/statusor.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

PackedMatrix Pack(MatrixView<const float> w, GemmPrecision precision,
                  ThreadPool& pool) {
  Array<float> dense;
  if (w.stride != w.cols) {
    dense = Array<float>(static_cast<size_t>(w.rows * w.cols));
    for (int64_t row = 0; row < w.rows; ++row) {
      std::memcpy(dense.data() + row * w.cols, w.row(row),
                  static_cast<size_t>(w.cols) * sizeof(float));
    }
  }
  const float* values = dense.empty() ? w.data : dense.data();
  const TensorView view = MakeTensorView(
      absl::MakeConstSpan(values, static_cast<size_t>(w.rows * w.cols)),
      Shape({w.rows, w.cols}));
  absl::StatusOr<PackedMatrix> packed =
      PackMatrix(view,
                 precision == GemmPrecision::kBF16 ? WeightFormat::kBF16
                                                   : WeightFormat::kF32,
                 pool);
  CHECK_OK(packed.status());
  return *std::move(packed);
}

}  // namespace

void Transpose(MatrixView<const float> src, MatrixView<float> dst,
               ThreadPool& pool) {
  CHECK(src.rows == dst.cols && src.cols == dst.rows);
  // 16 rows of the target are whole cache lines of the source, and 64 columns
  // whole lines of the target: all of a tile's lines fit L1.
  constexpr int64_t kRows = 16;
  constexpr int64_t kCols = 64;
  const int64_t strips = (dst.rows + kRows - 1) / kRows;
  pool.ParallelFor(strips, [&](int64_t begin, int64_t end, int) {
    for (int64_t r0 = begin * kRows; r0 < std::min(end * kRows, dst.rows);
         r0 += kRows) {
      const int64_t r1 = std::min(r0 + kRows, dst.rows);
      for (int64_t c0 = 0; c0 < dst.cols; c0 += kCols) {
        const int64_t c1 = std::min(c0 + kCols, dst.cols);
        for (int64_t r = r0; r < r1; ++r) {
          for (int64_t c = c0; c < c1; ++c) dst.row(r)[c] = src.row(c)[r];
        }
      }
    }
  });
}

void PackedLinear::Set(MatrixView<const float> w, GemmPrecision precision,
                       bool transpose, ThreadPool& pool) {
  matrix_ = PackedMatrix();
  transpose_ = PackedMatrix();
  matrix_ = Pack(w, precision, pool);
  if (!transpose) return;
  Array<float> turned(static_cast<size_t>(w.rows * w.cols));
  const MatrixView<float> view(turned.data(), w.cols, w.rows);
  Transpose(w, view, pool);
  transpose_ = Pack(view, precision, pool);
}

}  // namespace nibble
