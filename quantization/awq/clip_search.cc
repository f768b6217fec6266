#include "quantization/awq/clip_search.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "kernels/gemm/gemm.h"
#include "kernels/thread_pool.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_kernels.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// llm-awq's.
constexpr int64_t kRatios = 10;
float Ratio(int64_t k) { return 1.0f - static_cast<float>(k) / 20.0f; }

// Errors held at a time, in rows of a group and ratio. With their products, 2 x
// 1 MB at 128 inputs, beside which G's block of 64 KB is nothing; where a group
// is a whole row of 11008, 2 x 90 MB, and a block of 485 MB.
constexpr int64_t kChunkRows = 2048;

// The errors of one row's group at every ratio. errors: kRatios rows from
// `first` on.
void WriteErrors(absl::Span<const float> weights, const GridSpec& spec,
                 std::vector<uint8_t>& codes, MatrixView<float> errors) {
  codes.resize(weights.size());
  for (int64_t k = 0; k < kRatios; ++k) {
    const GroupGrid grid = FitClippedGroup(weights, Ratio(k), spec);
    EncodeGroup(weights, grid, spec, absl::MakeSpan(codes));
    float* row = errors.row(k);
    for (size_t j = 0; j < weights.size(); ++j) {
      row[j] = DecodeWeight(codes[j], grid, spec) - weights[j];
    }
  }
}

double Dot(absl::Span<const float> a, absl::Span<const float> b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += double{a[j]} * b[j];
  return sum;
}

// Columns [first, first + size) of the matrix.
struct Group {
  int64_t index = 0;
  int64_t first = 0;
  int64_t size = 0;
};

// The block of G in scaled inputs: G_ij / (s_i s_j). [size, size]
Array<float> ScaledBlock(MatrixView<const float> gram, const Group& group,
                         absl::Span<const float> scales) {
  Array<float> block(static_cast<size_t>(group.size * group.size));
  float* out = block.data();
  for (int64_t i = group.first; i < group.first + group.size; ++i) {
    for (int64_t j = group.first; j < group.first + group.size; ++j) {
      *out++ = gram.row(i)[j] / scales[static_cast<size_t>(i)] /
               scales[static_cast<size_t>(j)];
    }
  }
  return block;
}

class ClipSearch {
 public:
  ClipSearch(const RoundedLinear& linear, ThreadPool& pool)
      : linear_(linear),
        pool_(pool),
        chunk_(std::max<int64_t>(kChunkRows / kRatios, 1)),
        clip_(static_cast<size_t>(linear.weights.rows *
                                  linear.spec.groups(linear.weights.cols))) {
    const int64_t size = linear.spec.group_inputs(linear.weights.cols);
    const size_t values = static_cast<size_t>(chunk_ * kRatios * size);
    errors_ = Array<float>(values);
    products_ = Array<float>(values);
    std::fill(clip_.begin(), clip_.end(), 1.0f);
  }

  void Search(const Group& group, absl::Span<const float> scales,
              int64_t first_row) {
    const Array<float> block = ScaledBlock(linear_.gram, group, scales);
    const MatrixView<const float> gram(block.data(), group.size, group.size);
    for (int64_t i = first_row; i < linear_.weights.rows; i += chunk_) {
      SearchRows(group, gram, i, std::min(chunk_, linear_.weights.rows - i));
    }
  }

  Array<float> Take() { return std::move(clip_); }

 private:
  void SearchRows(const Group& group, MatrixView<const float> gram,
                  int64_t first, int64_t count) {
    const MatrixView<float> errors(errors_.data(), count * kRatios, group.size);
    const MatrixView<float> products(products_.data(), errors.rows, group.size);
    const MatrixView<const float> weights =
        linear_.weights.Rows(first, count).Columns(group.first, group.size);
    pool_.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
      std::vector<uint8_t> codes;
      for (int64_t i = begin; i < end; ++i) {
        WriteErrors(weights.row_span(i), linear_.spec, codes,
                    errors.Rows(i * kRatios, kRatios));
      }
    });
    GemmNT(errors, gram, {}, products, pool_);
    const int64_t groups = linear_.spec.groups(linear_.weights.cols);
    pool_.ParallelFor(count, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t best = 0;
        double least = 0;
        for (int64_t k = 0; k < kRatios; ++k) {
          const int64_t row = i * kRatios + k;
          const double error =
              Dot(errors.row_span(row), products.row_span(row));
          if (k > 0 && !(error < least)) continue;
          best = k;
          least = error;
        }
        clip_[static_cast<size_t>((first + i) * groups + group.index)] =
            Ratio(best);
      }
    });
  }

  const RoundedLinear& linear_;
  ThreadPool& pool_;
  const int64_t chunk_;    // rows at a time
  Array<float> clip_;      // [outputs, groups]
  Array<float> errors_;    // [chunk, kRatios, group]
  Array<float> products_;  // the same, times G_gg
};

}  // namespace

Array<float> SearchClip(const RoundedLinear& linear,
                        absl::Span<const float> scales, int64_t first_row,
                        ThreadPool& pool) {
  CHECK_EQ(static_cast<int64_t>(scales.size()), linear.weights.cols);
  ClipSearch search(linear, pool);
  const int64_t size = linear.spec.group_inputs(linear.weights.cols);
  for (int64_t g = 0; g < linear.spec.groups(linear.weights.cols); ++g) {
    const int64_t first = g * size;
    search.Search({g, first, std::min(size, linear.weights.cols - first)},
                  scales, first_row);
  }
  return search.Take();
}

}  // namespace nibble
