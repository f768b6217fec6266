#include "kernels/elementwise/topk.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/kernel_testing.h"
#include "kernels/elementwise/topk_kernels.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

class SearchTest : public VariantTest<SearchKernels> {
 protected:
  void SetUp() override {
    VariantTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_TRUE(LimitIsa(kernels().isa).ok());
  }
  void TearDown() override { ASSERT_TRUE(LimitIsa(BestIsa()).ok()); }
};
INSTANTIATE_VARIANTS(SearchTest, SearchTable());

TEST_P(SearchTest, FindsMaximumAtEveryPlaceOfEverySize) {
  for (int64_t n : SweepSizes()) {
    for (int64_t at = 0; at < n; at += 1 + n / 40) {
      std::vector<float> x(n, -5.0f);
      x[at] = -4.0f;
      Misaligned m(x, 3);
      EXPECT_EQ(kernels().max(m.data(), n), -4.0f);
      EXPECT_EQ(ArgMax({m.data(), static_cast<size_t>(n)}), at);
      EXPECT_EQ(kernels().find_above(m.data(), 0, n, -5.0f), at);
      EXPECT_EQ(kernels().find_equal(m.data(), at + 1, n, -4.0f), n);
    }
  }
}

TEST_P(SearchTest, FirstOfEqualScoresWins) {
  std::vector<float> x(40, 1.0f);
  x[13] = x[14] = x[33] = 2.0f;
  EXPECT_EQ(ArgMax(x), 13);
  std::vector<ScoredIndex> best(5);
  ASSERT_EQ(TopK(x, absl::MakeSpan(best)), 5);
  const int32_t expected[] = {13, 14, 33, 0, 1};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(best[i].index, expected[i]);
  x[13] = 0.0f, x[14] = -0.0f, x[33] = 0.0f;
  std::fill(x.begin(), x.begin() + 13, -1.0f);
  std::fill(x.begin() + 15, x.begin() + 33, -1.0f);
  std::fill(x.begin() + 34, x.end(), -1.0f);
  std::swap(x[13], x[14]);
  EXPECT_EQ(ArgMax(x), 13) << "-0 equals +0";
}

TEST_P(SearchTest, NanNeverWins) {
  for (int64_t n : {1, 15, 16, 40}) {
    std::vector<float> x(n, kNan);
    EXPECT_EQ(ArgMax(x), -1);
    std::vector<ScoredIndex> best(3);
    EXPECT_EQ(TopK(x, absl::MakeSpan(best)), 0);
    x[n - 1] = -kInf;
    EXPECT_EQ(ArgMax(x), n - 1);
    ASSERT_EQ(TopK(x, absl::MakeSpan(best)), 1);
    EXPECT_EQ(best[0].index, n - 1);
    x[0] = 3.0f;
    EXPECT_EQ(ArgMax(x), 0);
  }
}

TEST_P(SearchTest, TopKMatchesASort) {
  NormalNumbers normal(3);
  for (int64_t n : {1, 10, 100, 5000}) {
    std::vector<float> x = normal.Vector(n);
    // Many ties, some NaNs and infinities.
    for (float& v : x) v = std::round(v * 20.0f) / 20.0f;
    if (n >= 100) x[7] = kNan, x[50] = kInf, x[60] = -kInf, x[99] = kNan;
    std::vector<ScoredIndex> sorted;
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isnan(x[i])) sorted.push_back({x[i], static_cast<int32_t>(i)});
    }
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const ScoredIndex& a, const ScoredIndex& b) {
                       return a.score > b.score;
                     });
    for (int64_t k : {1, 2, 40, 99, 6000}) {
      std::vector<ScoredIndex> best(k);
      const int64_t found = TopK(x, absl::MakeSpan(best));
      ASSERT_EQ(found, std::min<int64_t>(k, sorted.size()));
      for (int64_t i = 0; i < found; ++i) {
        ASSERT_EQ(best[i].index, sorted[i].index) << n << " " << k;
        ASSERT_EQ(best[i].score, sorted[i].score);
      }
    }
  }
}

TEST_P(SearchTest, NothingOfNothing) {
  EXPECT_EQ(ArgMax({}), -1);
  std::vector<ScoredIndex> best(3);
  EXPECT_EQ(TopK({}, absl::MakeSpan(best)), 0);
  EXPECT_EQ(TopK({1.0f}, {}), 0);
}

}  // namespace
}  // namespace nibble
