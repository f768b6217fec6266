#include "quantization/gptq/gram.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr auto kZero = AlignedBuffer::Fill::kZero;

// Columns of a panel. Inputs up to it take one Syrk; above, the panels'
// diagonal blocks add 2048 / inputs to the memory of a triangle.
constexpr int64_t kPanelColumns = 2048;

// Tokens whose products are summed in f32: errors stay near 2^-24 times the
// root of a block's 256.
constexpr int64_t kChunkTokens = 2048;

}  // namespace

MatrixView<double> Gram::Panel::Above() { return {sums.data(), first, width}; }

MatrixView<double> Gram::Panel::Diagonal() {
  return {sums.data() + first * width, width, width};
}

Gram::Gram(int64_t inputs) : inputs_(inputs), mean_absolute_(inputs, 0.0) {
  for (int64_t first = 0; first < inputs; first += kPanelColumns) {
    Panel panel;
    panel.first = first;
    panel.width = std::min(kPanelColumns, inputs - first);
    panel.sums = Array<double>(
        static_cast<size_t>((first + panel.width) * panel.width), kZero);
    panels_.push_back(std::move(panel));
  }
}

void Gram::Add(MatrixView<const float> x, ThreadPool& pool) {
  CHECK(cross_.empty()) << "Add after AddPair";
  AddProducts(x, pool);
}

void Gram::AddProducts(MatrixView<const float> x, ThreadPool& pool) {
  DCHECK_EQ(x.cols, inputs_);
  CHECK(mean_.empty()) << "Add after Finish";
  const GemmOptions add = {GemmPrecision::kF32, /*accumulate=*/true};
  for (int64_t first = 0; first < x.rows; first += kChunkTokens) {
    const MatrixView<const float> chunk =
        x.Rows(first, std::min(kChunkTokens, x.rows - first));
    for (Panel& panel : panels_) {
      const auto columns = chunk.Columns(panel.first, panel.width);
      SyrkUpper(columns, add, panel.Diagonal(), pool);
      if (panel.first == 0) continue;
      GemmTN(chunk.Columns(0, panel.first), columns, add, panel.Above(), pool);
    }
  }
  pool.ParallelFor(inputs_, [&](int64_t begin, int64_t end, int) {
    for (int64_t token = 0; token < x.rows; ++token) {
      const float* row = x.row(token);
      for (int64_t j = begin; j < end; ++j) {
        mean_absolute_[j] += std::abs(row[j]);
      }
    }
  });
  tokens_ += x.rows;
}

void Gram::AddPair(MatrixView<const float> x, MatrixView<const float> x_float,
                   ThreadPool& pool) {
  DCHECK(x.rows == x_float.rows && x.cols == x_float.cols);
  if (cross_.empty()) {
    CHECK_EQ(tokens_, 0) << "AddPair after Add";
    cross_ = Array<float>(static_cast<size_t>(inputs_ * inputs_), kZero);
  }
  AddProducts(x, pool);
  Array<float> difference(
      static_cast<size_t>(std::min(kChunkTokens, x.rows) * inputs_));
  for (int64_t first = 0; first < x.rows; first += kChunkTokens) {
    const int64_t rows = std::min(kChunkTokens, x.rows - first);
    const MatrixView<float> off(difference.data(), rows, inputs_);
    pool.ParallelFor(rows, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const float* of_float = x_float.row(first + i);
        const float* of_quantized = x.row(first + i);
        for (int64_t j = 0; j < inputs_; ++j) {
          off.row(i)[j] = of_float[j] - of_quantized[j];
        }
      }
    });
    GemmTN(off, x.Rows(first, rows), {GemmPrecision::kF32, true},
           MatrixView<float>(cross_.data(), inputs_, inputs_), pool);
  }
}

void Gram::Finish(ThreadPool& pool) {
  CHECK(mean_.empty()) << "Finish called twice";
  mean_ = Array<float>(static_cast<size_t>(inputs_ * inputs_));
  const double share = tokens_ > 0 ? 1.0 / static_cast<double>(tokens_) : 0.0;
  std::atomic<bool> finite{true};
  for (Panel& panel : panels_) {
    pool.ParallelForStealing(
        panel.first + panel.width, /*grain=*/64,
        [&](int64_t begin, int64_t end, int) {
          bool good = true;
          for (int64_t i = begin; i < end; ++i) {
            const double* sums = panel.sums.data() + i * panel.width;
            for (int64_t j = std::max(i, panel.first);
                 j < panel.first + panel.width; ++j) {
              const float value =
                  static_cast<float>(sums[j - panel.first] * share);
              good &= std::isfinite(value);
              mean_[i * inputs_ + j] = value;
              mean_[j * inputs_ + i] = value;
            }
          }
          if (!good) finite = false;
        });
    panel.sums = Array<double>();
  }
  panels_.clear();
  for (int64_t j = 0; j < inputs_; ++j) {
    mean_squares_.push_back(mean_[j * inputs_ + j]);
    mean_absolute_[j] *= share;
  }
  for (float& value : cross_) {
    value = static_cast<float>(value * share);
    if (!std::isfinite(value)) finite = false;
  }
  is_finite_ = finite;
}

MatrixView<const float> Gram::mean() const {
  CHECK(!mean_.empty() || inputs_ == 0) << "mean before Finish";
  return {mean_.data(), inputs_, inputs_};
}

MatrixView<const float> Gram::mean_cross() const {
  return {cross_.data(), cross_.empty() ? 0 : inputs_, inputs_};
}

}  // namespace nibble
