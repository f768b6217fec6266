// How often the sampler draws each token.

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/sampler.h"
#include "runtime/sampler_testing.h"

namespace nibble {
namespace {

using ::nibble::testing::Counts;
using ::nibble::testing::MakeSampler;
using ::nibble::testing::RandomLogits;
using ::nibble::testing::SampleFrom;
using ::nibble::testing::SamplingDistribution;

constexpr float kInf = std::numeric_limits<float>::infinity();

// Pearson's test of `counts` against `p`, at six standard deviations of the
// chi-square distribution (Wilson and Hilferty's approximation): with fixed
// seeds it either always passes or always fails. Tokens expected less than five
// times are taken together.
void ExpectDistribution(const std::vector<int>& counts,
                        const std::vector<double>& p) {
  double draws = 0;
  for (int count : counts) draws += count;
  double chi_square = 0, rest_expected = 0, rest_count = 0;
  int cells = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " was cut off";
      continue;
    }
    const double expected = p[i] * draws;
    if (expected < 5) {
      rest_expected += expected;
      rest_count += counts[i];
      continue;
    }
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++cells;
  }
  if (rest_expected > 0) {
    chi_square += (rest_count - rest_expected) * (rest_count - rest_expected) /
                  rest_expected;
    ++cells;
  }
  ASSERT_GT(cells, 1);
  const double k = cells - 1;
  const double deviation =
      (std::cbrt(chi_square / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
  EXPECT_LT(deviation, 6.0)
      << chi_square << " with " << k << " degrees of freedom";
}

TEST(SamplerDrawsTest, AllLogitsEqualDrawsUniformly) {
  SamplingOptions options;
  options.temperature = 1;
  const std::vector<float> logits(50, 7.25f);
  ExpectDistribution(Counts(options, logits, 20000),
                     std::vector<double>(50, 0.02));
}

struct Case {
  const char* name;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
};

class SamplerDistributionTest : public ::testing::TestWithParam<Case> {
 protected:
  SamplingOptions Options() const {
    SamplingOptions options;
    options.temperature = GetParam().temperature;
    options.top_k = GetParam().top_k;
    options.top_p = GetParam().top_p;
    options.min_p = GetParam().min_p;
    options.seed = 20;
    return options;
  }
};

TEST_P(SamplerDistributionTest, DrawsAsOftenAsTheReferenceSays) {
  const std::vector<float> logits = RandomLogits(300, 5, 1.5f);
  ExpectDistribution(Counts(Options(), logits, 40000),
                     SamplingDistribution(Options(), logits));
}

TEST_P(SamplerDistributionTest, CutsOffWhatTheReferenceCutsOff) {
  // Many vocabularies and few draws: tokens outside the kept set never come,
  // and, with a temperature that makes the kept set even, all of it comes.
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> logits = RandomLogits(40, seed, 1.0f);
    const std::vector<double> p = SamplingDistribution(Options(), logits);
    const std::vector<int> counts = Counts(Options(), logits, 4000);
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) {
        EXPECT_EQ(counts[i], 0) << "seed " << seed << " token " << i;
      }
      // Missed by chance once in e^20.
      if (p[i] * 4000 > 20) {
        EXPECT_GT(counts[i], 0) << "seed " << seed << " token " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Steps, SamplerDistributionTest,
    ::testing::Values(
        Case{"plain"}, Case{"cold", 0.5}, Case{"hot", 2.0},
        Case{"top_k", 1, 12}, Case{"top_k_one", 1, 2},
        Case{"top_k_beyond_vocabulary", 1, 100000}, Case{"top_p", 1, 0, 0.8},
        Case{"top_p_small", 1.5, 0, 0.35},
        Case{"top_p_nearly_one", 1, 0, 0.999}, Case{"min_p", 1, 0, 1, 0.05},
        Case{"top_k_and_top_p", 1, 30, 0.7}, Case{"all", 0.9, 60, 0.95, 0.02},
        Case{"top_p_and_min_p", 1.2, 0, 0.9, 0.01}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SamplerDrawsTest, TopPOfAFlatDistributionKeepsTheLowestIds) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 0.5;
  const std::vector<int> counts =
      Counts(options, std::vector<float>(100, 0.0f), 5000);
  for (int i = 0; i < 50; ++i) EXPECT_GT(counts[i], 0) << i;
  for (int i = 50; i < 100; ++i) EXPECT_EQ(counts[i], 0) << i;
}

TEST(SamplerDrawsTest, HugeTemperatureIsUniformOverWhatIsNotBanned) {
  SamplingOptions options;
  options.temperature = 1e300;
  const std::vector<int> counts = Counts(options, {-30, 0, -kInf, 30, 5}, 8000);
  ExpectDistribution(counts, {0.25, 0.25, 0, 0.25, 0.25});
}

TEST(SamplerDrawsTest, LargeVocabularyKeepsTheHeadThatTheReferenceKeeps) {
  constexpr int64_t kVocabulary = 150000;
  const std::vector<float> logits = RandomLogits(kVocabulary, 11, 2.5f);
  for (double top_p : {0.1, 0.5, 0.95}) {
    SamplingOptions options;
    options.temperature = 0.7;
    options.top_p = top_p;
    const std::vector<double> p = SamplingDistribution(options, logits);
    Sampler sampler = MakeSampler(options, kVocabulary);
    for (int i = 0; i < 100; ++i) {
      EXPECT_GT(p[SampleFrom(sampler, logits)], 0) << top_p;
    }
  }
}

}  // namespace
}  // namespace nibble
