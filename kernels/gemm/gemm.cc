#include "kernels/gemm/gemm.h"

#include <algorithm>

#include "absl/log/check.h"
#include "kernels/gemm/blocked_product.h"
#include "kernels/gemm/factor.h"
#include "kernels/gemm/pack_factor.h"
#include "kernels/gemm/words.h"

namespace nibble {
namespace {

PackedLayout LayoutOf(const Factor& b, GemmPrecision precision) {
  const absl::StatusOr<PackedLayout> layout = PackedLayout::Create(
      precision == GemmPrecision::kF32 ? WeightFormat::kF32
                                       : WeightFormat::kBF16,
      b.count(), b.depth());
  CHECK_OK(layout.status());
  return *layout;
}

template <class T>
void CheckShapes(const Factor& a, const Factor& b, MatrixView<T> c) {
  CHECK_EQ(a.depth(), b.depth());
  CHECK_EQ(c.rows, a.count());
  CHECK_EQ(c.cols, b.count());
  CHECK(a.count() > 0 && b.count() > 0 && a.depth() > 0);
}

Sums SumsIn(MatrixView<float> c, bool accumulate) {
  Sums sums;
  sums.floats = c;
  sums.accumulate = accumulate;
  return sums;
}

Sums SumsIn(MatrixView<double> c, bool accumulate) {
  Sums sums;
  sums.doubles = c;
  sums.accumulate = accumulate;
  return sums;
}

template <class T>
void Multiply(const Factor& a, const Factor& b, const GemmOptions& options,
              MatrixView<T> c, ThreadPool& pool) {
  CheckShapes(a, b, c);
  BlockedProduct(a.count(), LayoutOf(b, options.precision), /*upper=*/false)
      .Run(a, b, SumsIn(c, options.accumulate), pool);
}

template <class T>
void MultiplyUpper(MatrixView<const float> x, const GemmOptions& options,
                   MatrixView<T> h, ThreadPool& pool) {
  const Factor columns = {x, /*transposed=*/true};
  CheckShapes(columns, columns, h);
  Sums sums = SumsIn(h, options.accumulate);
  sums.upper = true;
  BlockedProduct(x.cols, LayoutOf(columns, options.precision), /*upper=*/true)
      .Run(columns, columns, sums, pool);
}

// What is above the diagonal also becomes what is below.
void MirrorUpper(MatrixView<float> h, ThreadPool& pool) {
  // 16 KiB of either side.
  constexpr int64_t kBlock = 64;
  const int64_t blocks = (h.rows + kBlock - 1) / kBlock;
  pool.ParallelForStealing(blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * kBlock; i < std::min(h.rows, end * kBlock);
         i += kBlock) {
      const int64_t rows = std::min(kBlock, h.rows - i);
      for (int64_t j = 0; j < i; j += kBlock) {
        TransposeWords(h.row(j) + i, h.stride, kBlock, rows, h.row(i) + j,
                       h.stride);
      }
      for (int64_t r = 1; r < rows; ++r) {
        for (int64_t c = 0; c < r; ++c)
          h.row(i + r)[i + c] = h.row(i + c)[i + r];
      }
    }
  });
}

Factor FirstFactor(GemmForm form, MatrixView<const float> a) {
  return {a, form == GemmForm::kTN};
}

Factor SecondFactor(GemmForm form, MatrixView<const float> b) {
  return {b, form != GemmForm::kNT};
}

}  // namespace

void GemmNT(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool) {
  Multiply(FirstFactor(GemmForm::kNT, a), SecondFactor(GemmForm::kNT, b),
           options, c, pool);
}

void GemmNN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool) {
  Multiply(FirstFactor(GemmForm::kNN, a), SecondFactor(GemmForm::kNN, b),
           options, c, pool);
}

void GemmTN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<float> c, ThreadPool& pool) {
  Multiply(FirstFactor(GemmForm::kTN, a), SecondFactor(GemmForm::kTN, b),
           options, c, pool);
}

void GemmTN(MatrixView<const float> a, MatrixView<const float> b,
            const GemmOptions& options, MatrixView<double> c,
            ThreadPool& pool) {
  Multiply(FirstFactor(GemmForm::kTN, a), SecondFactor(GemmForm::kTN, b),
           options, c, pool);
}

void Syrk(MatrixView<const float> x, const GemmOptions& options,
          MatrixView<float> h, ThreadPool& pool) {
  MultiplyUpper(x, options, h, pool);
  MirrorUpper(h, pool);
}

void SyrkUpper(MatrixView<const float> x, const GemmOptions& options,
               MatrixView<double> h, ThreadPool& pool) {
  MultiplyUpper(x, options, h, pool);
}

void GemmBatch(GemmForm form, absl::Span<const GemmProduct> products,
               const GemmOptions& options, ThreadPool& pool) {
  const auto product_of = [&](const GemmProduct& p) {
    return BlockedProduct(
        p.c.rows, LayoutOf(SecondFactor(form, p.b), options.precision), false);
  };
  int64_t bytes = 0;
  for (const GemmProduct& p : products) {
    CheckShapes(FirstFactor(form, p.a), SecondFactor(form, p.b), p.c);
    bytes = std::max(bytes, product_of(p).SerialBytes());
  }
  std::byte* const memory =
      pool.Scratch(static_cast<size_t>(bytes * pool.threads()));
  pool.ParallelForStealing(
      static_cast<int64_t>(products.size()), 1,
      [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const GemmProduct& p = products[i];
          product_of(p).RunSerially(
              FirstFactor(form, p.a), SecondFactor(form, p.b),
              SumsIn(p.c, options.accumulate), memory + thread * bytes);
        }
      });
}

void GemmOperand::Pack(GemmForm form, MatrixView<const float> b,
                       GemmPrecision precision, ThreadPool& pool) {
  CHECK(form != GemmForm::kTN);
  const Factor factor = SecondFactor(form, b);
  layout_ = LayoutOf(factor, precision);
  const size_t bytes = static_cast<size_t>(layout_.bytes());
  if (memory_.size() < bytes) memory_ = AlignedBuffer(bytes);
  pool.ParallelForStealing(
      TileUnits(factor, layout_), 1, [&](int64_t begin, int64_t end, int) {
        PackTileUnits(factor, layout_, begin, end, memory_.data());
      });
}

void GemmPacked(MatrixView<const float> a, const GemmOperand& b,
                bool accumulate, MatrixView<float> c, ThreadPool& pool) {
  CHECK_EQ(a.cols, b.k());
  CHECK_EQ(c.rows, a.rows);
  CHECK_EQ(c.cols, b.n());
  BlockedProduct(a.rows, b.layout(), /*upper=*/false)
      .RunPacked({a, false}, b.data(), SumsIn(c, accumulate), pool);
}

}  // namespace nibble
