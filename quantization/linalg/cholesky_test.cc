#include "quantization/linalg/cholesky.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/thread_pool.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr double kGuard = 54321.25;

// Around blocks of 128, strips of 96 rows, groups of 12 and 6, tiles of 16.
constexpr int64_t kSizes[] = {1, 2, 3, 17, 127, 128, 129, 200, 260, 400};

// A square matrix whose rows lie further apart than they are long.
struct Square {
  explicit Square(int64_t n, int64_t padding = 0)
      : n(n),
        stride(n + padding),
        values(static_cast<size_t>(n * stride), kGuard) {}

  MatrixView<double> view() { return {values.data(), n, n, stride}; }
  double& at(int64_t i, int64_t j) { return values[i * stride + j]; }
  double at(int64_t i, int64_t j) const { return values[i * stride + j]; }

  int64_t n, stride;
  std::vector<double> values;
};

// X^T X / rows + damping * I of normal numbers whose columns correlate. Both
// triangles.
Square RandomGram(int64_t n, int64_t rows, double damping, uint32_t seed,
                  int64_t padding = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> x(rows * n);
  for (int64_t r = 0; r < rows; ++r) {
    const double shared = normal(generator);
    for (int64_t j = 0; j < n; ++j) x[r * n + j] = normal(generator) + shared;
  }
  Square h(n, padding);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += x[r * n + i] * x[r * n + j];
      h.at(i, j) = h.at(j, i) = sum / rows + (i == j ? damping : 0);
    }
  }
  return h;
}

double Gamma(double terms) { return terms * 0x1p-53 / (1 - terms * 0x1p-53); }

// |H - R R^T| <= gamma(n + n / 64) |R| |R^T|, and the sums here as much again.
void ExpectFactor(const Square& r, const Square& h) {
  const double factor = Gamma(2 * (r.n + r.n / 64.0 + 2));
  for (int64_t i = 0; i < r.n; ++i) {
    EXPECT_GT(r.at(i, i), 0);
    for (int64_t j = 0; j < i; ++j) ASSERT_EQ(r.at(i, j), 0);
    for (int64_t j = i; j < r.n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t k = j; k < r.n; ++k) {
        sum += r.at(i, k) * r.at(j, k);
        magnitude += std::abs(r.at(i, k) * r.at(j, k));
      }
      ASSERT_NEAR(sum, h.at(i, j), factor * magnitude) << i << " " << j;
    }
  }
}

// |U R - I| <= gamma(3 n) (|U| |R|)^2, and the sums here as much as gamma(n).
void ExpectInverse(const Square& u, const Square& r) {
  const int64_t n = u.n;
  Square magnitude(n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      magnitude.at(i, j) = 0;
      for (int64_t k = i; k <= j; ++k) {
        magnitude.at(i, j) += std::abs(u.at(i, k) * r.at(k, j));
      }
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      double sum = 0, bound = 0;
      for (int64_t k = i; k <= j; ++k) {
        sum += u.at(i, k) * r.at(k, j);
        bound += magnitude.at(i, k) * magnitude.at(k, j);
      }
      ASSERT_NEAR(sum, i == j ? 1 : 0, Gamma(4.0 * n + 4) * bound)
          << i << " " << j;
    }
  }
}

class CholeskyTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuSupports(GetParam())) GTEST_SKIP() << WhyUnsupported(GetParam());
    ASSERT_TRUE(LimitIsa(GetParam()).ok());
  }
  ~CholeskyTest() override { EXPECT_TRUE(LimitIsa(BestIsa()).ok()); }

  ThreadPool pool_{2};
};

TEST_P(CholeskyTest, FactorsAndInvertsWithinTheBounds) {
  for (int64_t n : kSizes) {
    SCOPED_TRACE(n);
    const Square h = RandomGram(n, n + 20, 0.01, 1, /*padding=*/3);
    Square r = h;
    ASSERT_TRUE(FactorUpper(r.view(), pool_));
    ExpectFactor(r, h);
    Square u = r;
    InvertUpper(u.view(), pool_);
    ExpectInverse(u, r);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = n; j < u.stride; ++j) EXPECT_EQ(u.at(i, j), kGuard);
    }
    Square both = h;
    ASSERT_TRUE(UpperInverseFactor(both.view(), pool_));
    EXPECT_EQ(both.values, u.values);
  }
}

TEST_P(CholeskyTest, ReadsOnlyOnAndAboveTheDiagonal) {
  const Square h = RandomGram(150, 200, 0.01, 2);
  Square whole = h, upper = h;
  for (int64_t i = 0; i < h.n; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      upper.at(i, j) = std::numeric_limits<double>::quiet_NaN();
    }
  }
  ASSERT_TRUE(UpperInverseFactor(whole.view(), pool_));
  ASSERT_TRUE(UpperInverseFactor(upper.view(), pool_));
  EXPECT_EQ(upper.values, whole.values);
}

TEST_P(CholeskyTest, RejectsWhatIsNotPositiveDefinite) {
  constexpr int64_t kSize = 300;
  const Square good = RandomGram(kSize, 350, 0.01, 3);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (int64_t at : {int64_t{0}, int64_t{127}, int64_t{128}, kSize - 1}) {
    for (double value : {-1.0, 0.0, 1e-9, kNan, kInfinity, -kInfinity}) {
      Square h = good;
      h.at(at, at) = value;
      EXPECT_FALSE(UpperInverseFactor(h.view(), pool_)) << at << " " << value;
    }
  }
  // Off the diagonal, larger than the diagonal permits, or no number.
  for (int64_t i : {0, 5, 130}) {
    for (int64_t j : {131, 299}) {
      for (double value : {1e3, kNan, kInfinity, -kInfinity}) {
        Square h = good;
        h.at(i, j) = value;
        EXPECT_FALSE(UpperInverseFactor(h.view(), pool_)) << i << " " << j;
      }
    }
  }
}

TEST_P(CholeskyTest, RejectsExactlySingularMatrices) {
  for (int64_t n : {2, 130}) {
    Square ones(n);
    for (double& value : ones.values) value = 4;
    EXPECT_FALSE(FactorUpper(ones.view(), pool_));
    Square zeros(n);
    for (double& value : zeros.values) value = 0;
    EXPECT_FALSE(FactorUpper(zeros.view(), pool_));
  }
}

// The Hilbert matrix of order 10 has a condition of 1.6e13; and a Gram matrix
// of far fewer rows than columns with a damping of 1e-8.
TEST_P(CholeskyTest, KeepsItsBoundsOnIllConditionedMatrices) {
  Square hilbert(10);
  for (int64_t i = 0; i < 10; ++i) {
    for (int64_t j = 0; j < 10; ++j) {
      hilbert.at(i, j) = 1.0 / static_cast<double>(i + j + 1);
    }
  }
  for (const Square& h : {hilbert, RandomGram(200, 30, 1e-8, 4)}) {
    Square r = h;
    ASSERT_TRUE(FactorUpper(r.view(), pool_));
    ExpectFactor(r, h);
    Square u = r;
    InvertUpper(u.view(), pool_);
    ExpectInverse(u, r);
  }
}

TEST_P(CholeskyTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Square h = RandomGram(450, 300, 0.01, 5);
  std::vector<double> first;
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    Square u = h;
    ASSERT_TRUE(UpperInverseFactor(u.view(), pool));
    if (first.empty()) first = u.values;
    EXPECT_EQ(u.values, first) << threads;
  }
}

// A diagonal H is factored exactly: U_jj = 1 / sqrt(h_jj).
TEST_P(CholeskyTest, InvertsDiagonalsExactly) {
  constexpr int64_t kSize = 140;
  Square h(kSize);
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {
      h.at(i, j) = i == j ? std::ldexp(1.0, 2 * (i % 40) - 30) : 0;
    }
  }
  Square u = h;
  ASSERT_TRUE(UpperInverseFactor(u.view(), pool_));
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {
      EXPECT_EQ(u.at(i, j), i == j ? std::ldexp(1.0, 15 - i % 40) : 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, CholeskyTest, ::testing::ValuesIn(kAllIsas),
                         [](const auto& info) {
                           return std::string(IsaName(info.param));
                         });

}  // namespace
}  // namespace nibble
