#include "kernels/gemm/gemm.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/table.h"
#include "kernels/matmul/test_matrices.h"
#include "kernels/thread_pool.h"
#include "tensor/bf16.h"
#include "tensor/buffer.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

struct Shape3 {
  int64_t m, n, k;
};

// Around the kernels' groups of 6, 12 and 16 rows, tiles of 16 outputs, units
// of 10 groups, blocks of 256 k and pairs of bf16.
constexpr Shape3 kShapes[] = {{1, 1, 1},     {5, 17, 3},     {13, 16, 256},
                              {12, 33, 257}, {241, 65, 100}, {3, 150, 513},
                              {7, 129, 31},  {330, 70, 258}};

constexpr GemmForm kForms[] = {GemmForm::kNT, GemmForm::kNN, GemmForm::kTN};

GuardedMatrix RandomMatrix(int64_t rows, int64_t cols, uint32_t seed) {
  GuardedMatrix matrix(rows, cols, cols + 3, 1);
  const std::vector<float> values = RandomValues(rows * cols, seed);
  for (int64_t i = 0; i < rows * cols; ++i) {
    matrix.set(i / cols, i % cols, values[i]);
  }
  return matrix;
}

GuardedMatrix Transposed(GuardedMatrix& matrix) {
  const MatrixView<float> from = matrix.view();
  GuardedMatrix result(from.cols, from.rows, from.rows + 5, 2);
  for (int64_t i = 0; i < from.rows; ++i) {
    for (int64_t j = 0; j < from.cols; ++j) result.set(j, i, from.row(i)[j]);
  }
  return result;
}

void Gemm(GemmForm form, MatrixView<const float> a, MatrixView<const float> b,
          const GemmOptions& options, MatrixView<float> c, ThreadPool& pool) {
  switch (form) {
    case GemmForm::kNT:
      return GemmNT(a, b, options, c, pool);
    case GemmForm::kNN:
      return GemmNN(a, b, options, c, pool);
    case GemmForm::kTN:
      return GemmTN(a, b, options, c, pool);
  }
}

// A product a [m, k] times b [n, k]^T with its factors also transposed.
struct Problem {
  explicit Problem(const Shape3& shape, uint32_t seed = 1)
      : shape(shape),
        a(RandomMatrix(shape.m, shape.k, seed)),
        b(RandomMatrix(shape.n, shape.k, seed + 1)),
        c(RandomMatrix(shape.m, shape.n, seed + 2)),
        a_transposed(Transposed(a)),
        b_transposed(Transposed(b)) {}

  MatrixView<const float> First(GemmForm form) {
    return form == GemmForm::kTN ? a_transposed.view() : a.view();
  }
  MatrixView<const float> Second(GemmForm form) {
    return form == GemmForm::kNT ? b.view() : b_transposed.view();
  }

  Shape3 shape;
  GuardedMatrix a, b, c;
  GuardedMatrix a_transposed, b_transposed;
};

std::vector<float> ValuesOf(MatrixView<const float> matrix) {
  std::vector<float> values;
  for (int64_t i = 0; i < matrix.rows; ++i) {
    values.insert(values.end(), matrix.row(i), matrix.row(i) + matrix.cols);
  }
  return values;
}

// On each ISA, in each precision. The parameter is an ISA.
class GemmTest
    : public ::testing::TestWithParam<std::tuple<Isa, GemmPrecision>> {
 protected:
  void SetUp() override {
    if (!CpuSupports(isa())) GTEST_SKIP() << WhyUnsupported(isa());
    ASSERT_TRUE(LimitIsa(isa()).ok());
  }
  ~GemmTest() override { EXPECT_TRUE(LimitIsa(BestIsa()).ok()); }

  Isa isa() const { return std::get<0>(GetParam()); }
  GemmOptions options() const {
    GemmOptions options;
    options.precision = std::get<1>(GetParam());
    return options;
  }
  bool bf16() const { return options().precision == GemmPrecision::kBF16; }
  WeightFormat format() const {
    return bf16() ? WeightFormat::kBF16 : WeightFormat::kF32;
  }
  float Rounded(float value) const {
    return bf16() ? ToFloat(ToBF16(value)) : value;
  }

  // The bound of kernels/matmul/matmul.h for a sum of k products, given
  // sum |a b|; bf16 instructions may take subnormal products for zero.
  double Tolerance(int64_t k, double magnitude) const {
    if (!bf16()) return SumErrorFactor(k) * magnitude;
    const bool in_order = SumsInReferenceOrder(
        ChooseKernel(WeightFormat::kBF16, Activations::kBF16, 1));
    if (!in_order) return TileSumTolerance(k, magnitude);
    return SumErrorFactor(k) * magnitude +
           k * std::numeric_limits<float>::min();
  }

  // `got` is the product, plus `old` if not null.
  void ExpectProduct(MatrixView<const float> got, Problem& p,
                     const std::vector<float>* old) const {
    const MatrixView<float> a = p.a.view(), b = p.b.view();
    for (int64_t i = 0; i < p.shape.m; ++i) {
      for (int64_t j = 0; j < p.shape.n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t k = 0; k < p.shape.k; ++k) {
          const double product =
              double{Rounded(a.row(i)[k])} * Rounded(b.row(j)[k]);
          sum += product;
          magnitude += std::abs(product);
        }
        double tolerance = Tolerance(p.shape.k, magnitude);
        if (old != nullptr) {
          sum += (*old)[i * p.shape.n + j];
          tolerance += 0x1p-24 * (std::abs(sum) + tolerance);
        }
        ASSERT_NEAR(got.row(i)[j], sum, tolerance) << i << " " << j;
      }
    }
  }

  ThreadPool pool_{2};
};

TEST_P(GemmTest, EveryFormIsTheProductWithinItsBound) {
  for (const Shape3& shape : kShapes) {
    Problem p(shape);
    const std::vector<float> old = ValuesOf(p.c.view());
    for (GemmForm form : kForms) {
      for (bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << shape.m << "x" << shape.n << "x" << shape.k << " form "
                     << static_cast<int>(form) << accumulate);
        GuardedMatrix c = p.c;
        GemmOptions how = options();
        how.accumulate = accumulate;
        Gemm(form, p.First(form), p.Second(form), how, c.view(), pool_);
        ExpectProduct(c.view(), p, accumulate ? &old : nullptr);
        EXPECT_TRUE(c.GuardsIntact());
      }
    }
  }
}

TEST_P(GemmTest, AllFormsPackedOperandsBatchesAndMatMulGiveTheSameBits) {
  for (const Shape3& shape : kShapes) {
    Problem p(shape);
    std::vector<float> values = ValuesOf(p.b.view());
    MatMulOptions matmul_options;
    matmul_options.activations =
        bf16() ? Activations::kBF16 : Activations::kF32;
    GuardedMatrix c = p.c;
    MatMul(p.a.view(), Pack(values, shape.n, shape.k, format(), pool_),
           matmul_options, c.view(), pool_);
    const std::vector<float> want = ValuesOf(c.view());
    for (GemmForm form : kForms) {
      c = p.c;
      Gemm(form, p.First(form), p.Second(form), options(), c.view(), pool_);
      EXPECT_EQ(ValuesOf(c.view()), want);
      c = p.c;
      GemmBatch(form, {{p.First(form), p.Second(form), c.view()}}, options(),
                pool_);
      EXPECT_EQ(ValuesOf(c.view()), want);
      if (form == GemmForm::kTN) continue;
      c = p.c;
      GemmOperand operand;
      operand.Pack(form, p.Second(form), options().precision, pool_);
      GemmPacked(p.a.view(), operand, /*accumulate=*/false, c.view(), pool_);
      EXPECT_EQ(ValuesOf(c.view()), want);
      EXPECT_TRUE(c.GuardsIntact());
    }
  }
}

TEST_P(GemmTest, AccumulatesTheSumIntoFloatsAndDoubles) {
  Problem p({30, 40, 300});
  std::vector<float> product(30 * 40);
  const MatrixView<float> c(product.data(), 30, 40);
  GemmTN(p.a_transposed.view(), p.b_transposed.view(), options(), c, pool_);
  GemmOptions how = options();
  how.accumulate = true;
  std::vector<float> floats = ValuesOf(p.c.view());
  std::vector<double> doubles(floats.begin(), floats.end());
  const std::vector<float> old = floats;
  GemmTN(p.a_transposed.view(), p.b_transposed.view(), how,
         MatrixView<float>(floats.data(), 30, 40), pool_);
  GemmTN(p.a_transposed.view(), p.b_transposed.view(), how,
         MatrixView<double>(doubles.data(), 30, 40), pool_);
  for (size_t i = 0; i < old.size(); ++i) {
    EXPECT_EQ(floats[i], old[i] + product[i]);
    EXPECT_EQ(doubles[i], double{old[i]} + double{product[i]});
  }
}

TEST_P(GemmTest, BitsDoNotDependOnTheNumberOfThreads) {
  Problem p({500, 150, 270});
  for (GemmForm form : kForms) {
    std::vector<float> first;
    for (int threads : {1, 2, 5}) {
      ThreadPool pool(threads);
      GuardedMatrix c = p.c;
      Gemm(form, p.First(form), p.Second(form), options(), c.view(), pool);
      const std::vector<float> values = ValuesOf(c.view());
      if (first.empty()) first = values;
      EXPECT_EQ(values, first) << threads;
    }
  }
}

TEST_P(GemmTest, SyrkIsTheProductOfTheTransposeWithItself) {
  for (int64_t n : {1, 5, 16, 65, 301}) {
    for (int64_t k : {1, 257}) {
      SCOPED_TRACE(testing::Message() << n << " " << k);
      GuardedMatrix x = RandomMatrix(k, n, 3);
      std::vector<float> want(n * n), got(n * n);
      const MatrixView<float> h(got.data(), n, n);
      GemmTN(x.view(), x.view(), options(),
             MatrixView<float>(want.data(), n, n), pool_);
      Syrk(x.view(), options(), h, pool_);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          // Below the diagonal the factors of each product change places, which
          // only the order of a tile's sums could notice.
          EXPECT_EQ(got[i * n + j], got[j * n + i]);
          if (j >= i) {
            ASSERT_EQ(got[i * n + j], want[i * n + j]);
          }
        }
      }
      GemmOptions how = options();
      how.accumulate = true;
      Syrk(x.view(), how, h, pool_);
      for (int64_t i = 0; i < n * n; ++i) {
        const int64_t upper = i / n <= i % n ? i : i % n * n + i / n;
        ASSERT_EQ(got[i], 2 * want[upper]);
      }
    }
  }
}

TEST_P(GemmTest, SyrkUpperAddsInDoublesAndKeepsWhatIsBelowTheDiagonal) {
  constexpr int64_t kSize = 301, kDepth = 77, kStride = 310;
  GuardedMatrix x = RandomMatrix(kDepth, kSize, 3);
  std::vector<float> product(kSize * kSize);
  GemmTN(x.view(), x.view(), options(),
         MatrixView<float>(product.data(), kSize, kSize), pool_);
  std::vector<double> h(kSize * kStride, 0.125);
  const MatrixView<double> view(h.data(), kSize, kSize, kStride);
  GemmOptions how = options();
  how.accumulate = true;
  SyrkUpper(x.view(), how, view, pool_);
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kStride; ++j) {
      const bool inside = j >= i && j < kSize;
      EXPECT_EQ(h[i * kStride + j],
                0.125 + (inside ? double{product[i * kSize + j]} : 0.0));
    }
  }
  how.accumulate = false;
  SyrkUpper(x.view(), how, view, pool_);
  EXPECT_EQ(view.row(3)[7], double{product[3 * kSize + 7]});
}

TEST_P(GemmTest, SyrkBitsDoNotDependOnTheNumberOfThreads) {
  constexpr int64_t kSize = 400;
  GuardedMatrix x = RandomMatrix(70, kSize, 3);
  std::vector<float> first;
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<float> h(kSize * kSize);
    Syrk(x.view(), options(), MatrixView<float>(h.data(), kSize, kSize), pool);
    if (first.empty()) first = h;
    EXPECT_EQ(h, first) << threads;
  }
}

// Heads of an attention: columns of wider matrices.
TEST_P(GemmTest, ABatchMayHoldStridedViewsOfDifferentSizes) {
  constexpr int64_t kTokens = 40, kHeads = 5, kDim = 24;
  GuardedMatrix q = RandomMatrix(kTokens, kHeads * kDim, 1);
  GuardedMatrix k = RandomMatrix(kTokens, kHeads * kDim, 2);
  std::vector<std::vector<float>> scores(kHeads), want(kHeads);
  std::vector<GemmProduct> products;
  for (int64_t h = 0; h < kHeads; ++h) {
    const int64_t keys = kTokens - 3 * h;
    scores[h].resize(kTokens * keys);
    want[h].resize(kTokens * keys);
    products.push_back({q.view().Columns(h * kDim, kDim),
                        k.view().Columns(h * kDim, kDim).Rows(0, keys),
                        MatrixView<float>(scores[h].data(), kTokens, keys)});
    GemmNT(products[h].a, products[h].b, options(),
           MatrixView<float>(want[h].data(), kTokens, keys), pool_);
  }
  GemmBatch(GemmForm::kNT, products, options(), pool_);
  EXPECT_EQ(scores, want);
}

// Kernels write to c itself there, the padding of its rows left alone.
TEST_P(GemmTest, AlignedWholeTilesGetTheSameBits) {
  constexpr int64_t kRows = 30, kOutputs = 80, kStride = 96;
  for (int64_t k : {1, 64, 256, 300}) {
    Problem p({kRows, kOutputs, k});
    Array<float> aligned(kRows * kStride);
    for (float& value : aligned) value = 7;
    for (GemmForm form : kForms) {
      GuardedMatrix c = p.c;
      Gemm(form, p.First(form), p.Second(form), options(), c.view(), pool_);
      Gemm(form, p.First(form), p.Second(form), options(),
           {aligned.data(), kRows, kOutputs, kStride}, pool_);
      for (int64_t i = 0; i < kRows * kStride; ++i) {
        const int64_t row = i / kStride, col = i % kStride;
        ASSERT_EQ(aligned[i], col < kOutputs ? c.at(row, col) : 7);
      }
    }
  }
}

TEST_P(GemmTest, AnInfinityOrNanReachesExactlyItsRowAndColumn) {
  Problem p({14, 35, 40});
  p.a.set(3, 20, std::numeric_limits<float>::quiet_NaN());
  p.b.set(30, 39, std::numeric_limits<float>::infinity());
  p.a_transposed = Transposed(p.a);
  p.b_transposed = Transposed(p.b);
  for (GemmForm form : kForms) {
    GuardedMatrix c = p.c;
    Gemm(form, p.First(form), p.Second(form), options(), c.view(), pool_);
    for (int64_t i = 0; i < 14; ++i) {
      for (int64_t j = 0; j < 35; ++j) {
        EXPECT_EQ(std::isnan(c.at(i, j)), i == 3);
        EXPECT_EQ(std::isinf(c.at(i, j)), i != 3 && j == 30);
      }
    }
  }
}

TEST_P(GemmTest, MemoryIsKeptFromCallToCall) {
  Problem p({40, 50, 300});
  GemmOperand operand;
  GuardedMatrix c = p.c;
  const auto run = [&] {
    operand.Pack(GemmForm::kNT, p.b.view(), options().precision, pool_);
    GemmPacked(p.a.view(), operand, false, c.view(), pool_);
    GemmTN(p.a_transposed.view(), p.b_transposed.view(), options(), c.view(),
           pool_);
  };
  run();
  const std::byte* scratch = pool_.Scratch(0);
  const std::byte* packed = operand.data();
  for (int i = 0; i < 3; ++i) run();
  EXPECT_EQ(pool_.Scratch(0), scratch);
  EXPECT_EQ(operand.data(), packed);
}

INSTANTIATE_TEST_SUITE_P(
    Isas, GemmTest,
    ::testing::Combine(::testing::ValuesIn(kAllIsas),
                       ::testing::Values(GemmPrecision::kF32,
                                         GemmPrecision::kBF16)),
    [](const auto& info) {
      return std::string(IsaName(std::get<0>(info.param))) +
             (std::get<1>(info.param) == GemmPrecision::kF32 ? "_f32"
                                                             : "_bf16");
    });

}  // namespace
}  // namespace nibble
