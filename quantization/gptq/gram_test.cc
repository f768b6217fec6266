#include "quantization/gptq/gram.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq_testing.h"
#include "quantization/gptq/residual_moment.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Sums over up to 2048 tokens are f32.
constexpr double kTolerance = 1e-6;

TEST(Gram, IsTheMeanOfProducts) {
  ThreadPool pool(2);
  const Matrix x = CorrelatedInputs(300, 70, 3);
  Gram gram(70);
  gram.Add(x.view().Rows(0, 1), pool);
  gram.Add(x.view().Rows(1, 170), pool);
  gram.Add(x.view().Rows(171, 129), pool);
  gram.Finish(pool);
  EXPECT_EQ(gram.tokens(), 300);
  EXPECT_TRUE(gram.is_finite());
  for (int64_t i = 0; i < 70; ++i) {
    double absolute = 0;
    for (int64_t t = 0; t < 300; ++t)
      absolute += std::abs(double{x.at(t, i)}) / 300;
    EXPECT_NEAR(gram.mean_absolute()[i], absolute, 1e-12 * absolute);
    EXPECT_EQ(gram.mean_squares()[i], gram.mean().row(i)[i]);
    for (int64_t j = 0; j < 70; ++j) {
      double product = 0, size = 0;
      for (int64_t t = 0; t < 300; ++t) {
        const double term = static_cast<double>(x.at(t, i)) * x.at(t, j) / 300;
        product += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(gram.mean().row(i)[j], product, kTolerance * size);
      ASSERT_EQ(gram.mean().row(i)[j], gram.mean().row(j)[i]);
    }
  }
}

// More inputs than a panel holds.
TEST(Gram, PanelsMakeOneMatrix) {
  ThreadPool pool(2);
  const int64_t inputs = 2048 + 40;
  const Matrix x = NormalMatrix(3, inputs, 1.0f, 5);
  const Gram gram = GramOf(x, pool);
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t j = 0; j < inputs; ++j) {
      double product = 0;
      for (int64_t t = 0; t < 3; ++t) {
        product += static_cast<double>(x.at(t, i)) * x.at(t, j) / 3;
      }
      ASSERT_NEAR(gram.mean().row(i)[j], product, 1e-5) << i << " " << j;
    }
  }
}

TEST(Gram, CrossMomentIsOfTheDifferences) {
  ThreadPool pool(2);
  const Matrix x = NormalMatrix(50, 33, 1.0f, 7);
  Matrix x_float = x;
  const Matrix noise = NormalMatrix(50, 33, 0.1f, 8);
  for (size_t i = 0; i < x.values.size(); ++i) {
    x_float.values[i] += noise.values[i];
  }
  Gram gram(33);
  gram.AddPair(x.view().Rows(0, 20), x_float.view().Rows(0, 20), pool);
  gram.AddPair(x.view().Rows(20, 30), x_float.view().Rows(20, 30), pool);
  gram.Finish(pool);
  for (int64_t i = 0; i < 33; ++i) {
    for (int64_t j = 0; j < 33; ++j) {
      double cross = 0;
      for (int64_t t = 0; t < 50; ++t) {
        cross += (x_float.at(t, i) - x.at(t, i)) * x.at(t, j) / 50.0;
      }
      ASSERT_NEAR(gram.mean_cross().row(i)[j], cross, 1e-6);
    }
  }
}

// The cross moments would be of other tokens than the mean's.
TEST(GramDeathTest, RefusesAddAndAddPairOnOneGram) {
  ThreadPool pool(1);
  const Matrix x = NormalMatrix(4, 5, 1.0f, 16);
  Gram pairs(5);
  pairs.AddPair(x.view(), x.view(), pool);
  EXPECT_DEATH(pairs.Add(x.view(), pool), "Add after AddPair");
  Gram single(5);
  single.Add(x.view(), pool);
  EXPECT_DEATH(single.AddPair(x.view(), x.view(), pool), "AddPair after Add");
}

TEST(ResidualMoment, IsTheMeanOfDifferencesTimesInputs) {
  ThreadPool pool(2);
  const Matrix wanted = NormalMatrix(40, 7, 1.0f, 13);
  const Matrix got = NormalMatrix(40, 7, 1.0f, 14);
  const Matrix x = NormalMatrix(40, 33, 1.0f, 15);
  ResidualMoment moment(7, 33);
  moment.Add(wanted.view().Rows(0, 25), got.view().Rows(0, 25),
             x.view().Rows(0, 25), pool);
  moment.Add(wanted.view().Rows(25, 15), got.view().Rows(25, 15),
             x.view().Rows(25, 15), pool);
  moment.Finish(pool);
  for (int64_t i = 0; i < 7; ++i) {
    for (int64_t j = 0; j < 33; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < 40; ++t) {
        sum += (double{wanted.at(t, i)} - got.at(t, i)) * x.at(t, j) / 40;
      }
      ASSERT_NEAR(moment.mean().row(i)[j], sum, 1e-5);
    }
  }
}

TEST(Gram, IsTheSameOnAnyNumberOfThreads) {
  ThreadPool one(1), three(3);
  const Matrix x = CorrelatedInputs(200, 100, 9);
  const Gram a = GramOf(x, one), b = GramOf(x, three);
  for (int64_t i = 0; i < 100; ++i) {
    for (int64_t j = 0; j < 100; ++j) {
      ASSERT_EQ(a.mean().row(i)[j], b.mean().row(i)[j]);
    }
  }
}

TEST(Gram, OfNoTokensIsZero) {
  ThreadPool pool(1);
  const Gram gram = GramOf({0, 5, {}}, pool);
  EXPECT_EQ(gram.tokens(), 0);
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(gram.mean().row(i)[i], 0.0f);
}

TEST(Gram, SeesInputsThatAreNotFinite) {
  ThreadPool pool(1);
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    Matrix x = NormalMatrix(20, 10, 1.0f, 11);
    x.at(7, 3) = bad;
    EXPECT_FALSE(GramOf(x, pool).is_finite()) << bad;
  }
}

}  // namespace
}  // namespace nibble
