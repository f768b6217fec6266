#include "quantization/gptq/damped_factor.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gptq_testing.h"
#include "quantization/gptq/gram.h"

namespace nibble {
namespace {

// By elimination from the last input to the first, in doubles.
std::vector<double> VariancesGivenLater(std::vector<double> h,
                                        const std::vector<int32_t>& order) {
  const size_t n = order.size();
  const auto at = [&](size_t i, size_t j) -> double& {
    return h[static_cast<size_t>(order[i]) * n + static_cast<size_t>(order[j])];
  };
  std::vector<double> variances(n);
  for (size_t k = n; k-- > 0;) {
    variances[static_cast<size_t>(order[k])] = at(k, k);
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j) {
        at(i, j) -= at(i, k) * at(k, j) / at(k, k);
      }
    }
  }
  return variances;
}

TEST(ConditionalVariances, AreThoseGivenTheInputsLaterInTheOrder) {
  ThreadPool pool(2);
  const Gram gram = GramOf(CorrelatedInputs(400, 70, 3), pool);
  for (const bool act_order : {false, true}) {
    FactorOptions options;
    options.act_order = act_order;
    options.damping = 0.03;
    const auto factor = FactorDamped(gram, options, pool);
    ASSERT_TRUE(factor.has_value());
    const std::vector<double> expected =
        VariancesGivenLater(Damped(gram, 0.03), factor->order);
    const std::vector<double> variances =
        ConditionalVariances(gram, options, pool);
    ASSERT_EQ(variances.size(), expected.size());
    bool less = false;
    for (size_t j = 0; j < expected.size(); ++j) {
      EXPECT_NEAR(variances[j], expected[j], 1e-9 * expected[j]) << j;
      less |= variances[j] < 0.5 * gram.mean_squares()[j];
    }
    EXPECT_TRUE(less);  // or the inputs would not be correlated
  }
}

// Inputs that were never active have the mean's variance, whatever comes later.
TEST(ConditionalVariances, OfInactiveInputsAreFinite) {
  ThreadPool pool(1);
  Matrix x = CorrelatedInputs(100, 20, 4);
  for (int64_t t = 0; t < x.rows; ++t) x.at(t, 7) = 0;
  const std::vector<double> variances =
      ConditionalVariances(GramOf(x, pool), FactorOptions(), pool);
  ASSERT_EQ(variances.size(), 20u);
  for (const double variance : variances) EXPECT_GT(variance, 0);
}

}  // namespace
}  // namespace nibble
