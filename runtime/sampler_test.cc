#include "runtime/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "runtime/sampler_reference.h"

namespace nibble {
namespace {

using ::nibble::testing::SamplingDistribution;
using ::nibble::testing::SamplingHistory;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Sampler MakeSampler(const SamplingOptions& options, int64_t vocabulary) {
  absl::StatusOr<Sampler> sampler = Sampler::Create(options, vocabulary);
  EXPECT_TRUE(sampler.ok()) << sampler.status();
  return *std::move(sampler);
}

int32_t SampleFrom(Sampler& sampler, std::vector<float> logits) {
  absl::StatusOr<int32_t> token = sampler.Sample(absl::MakeSpan(logits));
  EXPECT_TRUE(token.ok()) << token.status();
  return token.value_or(-1);
}

std::vector<float> RandomLogits(int64_t vocabulary, uint32_t seed,
                                float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Draws `draws` tokens from the same logits, with no history between them.
std::vector<int> Counts(const SamplingOptions& options,
                        const std::vector<float>& logits, int draws) {
  Sampler sampler = MakeSampler(options, logits.size());
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[SampleFrom(sampler, logits)];
  return counts;
}

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

TEST(SamplerTest, GreedyTakesTheLargest) {
  Sampler sampler = MakeSampler({}, 4);
  EXPECT_EQ(SampleFrom(sampler, {0.5f, -1, 2, 1.9f}), 2);
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfEquals) {
  Sampler sampler = MakeSampler({}, 4);
  EXPECT_EQ(SampleFrom(sampler, {1, 3, 3, 3}), 1);
}

TEST(SamplerTest, AllLogitsEqualDrawsUniformly) {
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

TEST(SamplerTest, TopPOfAFlatDistributionKeepsTheLowestIds) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 0.5;
  const std::vector<int> counts =
      Counts(options, std::vector<float>(100, 0.0f), 5000);
  for (int i = 0; i < 50; ++i) EXPECT_GT(counts[i], 0) << i;
  for (int i = 50; i < 100; ++i) EXPECT_EQ(counts[i], 0) << i;
}

TEST(SamplerTest, TopPZeroTakesTheMostProbable) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_p = 0;
  const std::vector<float> logits = {0.1f, 2.0f, 2.0f, 1.0f};
  EXPECT_EQ(Counts(options, logits, 200)[1], 200);
  options.top_k = 3;
  EXPECT_EQ(Counts(options, logits, 200)[1], 200);
}

TEST(SamplerTest, TopKOneIsGreedy) {
  SamplingOptions options;
  options.temperature = 5;
  options.top_k = 1;
  EXPECT_EQ(Counts(options, {1, 4, 4, 2}, 200)[1], 200);
}

TEST(SamplerTest, MinPOneKeepsOnlyTheMostProbable) {
  SamplingOptions options;
  options.temperature = 1;
  options.min_p = 1;
  const std::vector<int> counts = Counts(options, {1, 4, 4, 2}, 400);
  EXPECT_EQ(counts[1] + counts[2], 400);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[2], 0);
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  SamplingOptions options;
  for (double temperature : {1e-30, 1e-300, 5e-324}) {
    options.temperature = temperature;
    EXPECT_EQ(Counts(options, {-3, 1e-3f, 1.01e-3f, -9}, 100)[2], 100)
        << temperature;
  }
}

TEST(SamplerTest, HugeTemperatureIsUniformOverWhatIsNotBanned) {
  SamplingOptions options;
  options.temperature = 1e300;
  const std::vector<int> counts = Counts(options, {-30, 0, -kInf, 30, 5}, 8000);
  ExpectDistribution(counts, {0.25, 0.25, 0, 0.25, 0.25});
}

TEST(SamplerTest, LogitsAtTheEndsOfTheRangeDoNotOverflow) {
  SamplingOptions options;
  options.temperature = 0.1;
  constexpr float kMax = std::numeric_limits<float>::max();
  EXPECT_EQ(Counts(options, {-kMax, kMax, 0, -kMax}, 100)[1], 100);
}

TEST(SamplerTest, MinusInfinityIsNeverChosen) {
  SamplingOptions options;
  EXPECT_EQ(Counts(options, {-kInf, -5, -kInf}, 1)[1], 1);
  options.temperature = 1;
  for (int64_t top_k : {0, 2}) {
    options.top_k = top_k;
    EXPECT_EQ(Counts(options, {-kInf, -5, -kInf}, 100)[1], 100) << top_k;
  }
}

TEST(SamplerTest, RejectsNanLogits) {
  for (double temperature : {0.0, 1.0}) {
    SamplingOptions options;
    options.temperature = temperature;
    Sampler sampler = MakeSampler(options, 3);
    std::vector<float> logits = {1, kNan, 2};
    const absl::Status status = sampler.Sample(absl::MakeSpan(logits)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), "token 1")) << status;
  }
}

TEST(SamplerTest, RejectsLogitsThatAreAllNan) {
  Sampler sampler = MakeSampler({}, 3);
  std::vector<float> logits(3, kNan);
  EXPECT_EQ(sampler.Sample(absl::MakeSpan(logits)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SamplerTest, RejectsInfiniteLogits) {
  Sampler sampler = MakeSampler({}, 3);
  std::vector<float> logits = {1, 0, kInf};
  const absl::Status status = sampler.Sample(absl::MakeSpan(logits)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "token 2")) << status;
}

TEST(SamplerTest, RejectsEveryTokenBanned) {
  for (double temperature : {0.0, 1.0}) {
    SamplingOptions options;
    options.temperature = temperature;
    for (int32_t i = 0; i < 3; ++i) options.logit_bias[i] = -kInf;
    Sampler sampler = MakeSampler(options, 3);
    std::vector<float> logits = {1, 2, 3};
    const absl::Status status = sampler.Sample(absl::MakeSpan(logits)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), "banned")) << status;
  }
}

TEST(SamplerTest, LogitBiasMovesTheChoice) {
  SamplingOptions options;
  options.logit_bias = {{0, 5.0f}, {2, -kInf}};
  Sampler sampler = MakeSampler(options, 3);
  EXPECT_EQ(SampleFrom(sampler, {0, 4, 9}), 0);
}

TEST(SamplerTest, PenaltiesFollowTheReference) {
  SamplingOptions options;
  options.temperature = 1;
  options.repetition_penalty = 1.3;
  options.frequency_penalty = 0.4;
  options.presence_penalty = 0.25;
  options.logit_bias = {{3, 1.5f}};
  const std::vector<float> logits = RandomLogits(20, 3, 1.0f);
  const std::vector<int32_t> prompt = {1, 4, 4, 9, 700, -3};
  Sampler sampler = MakeSampler(options, 20);
  sampler.AddPrompt(prompt);
  SamplingHistory history;
  history.prompt = prompt;
  for (int step = 0; step < 50; ++step) {
    std::vector<float> adjusted = logits;
    absl::StatusOr<int32_t> token = sampler.Sample(absl::MakeSpan(adjusted));
    ASSERT_TRUE(token.ok());
    const std::vector<double> expected =
        nibble::testing::AdjustedLogits(options, logits, history);
    for (int i = 0; i < 20; ++i) {
      // One rounding of the result to f32.
      EXPECT_NEAR(adjusted[i], expected[i],
                  std::abs(expected[i]) * 0x1p-23 + 1e-30)
          << "step " << step << " token " << i;
    }
    history.output.push_back(*token);
  }
}

TEST(SamplerTest, RepetitionPenaltyLowersBothSigns) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  Sampler sampler = MakeSampler(options, 2);
  sampler.AddPrompt({0, 1});
  std::vector<float> logits = {3, -3};
  ASSERT_TRUE(sampler.Sample(absl::MakeSpan(logits)).ok());
  EXPECT_EQ(logits[0], 1.5f);
  EXPECT_EQ(logits[1], -6.0f);
}

TEST(SamplerTest, FrequencyAndPresencePenaltiesDisregardThePrompt) {
  SamplingOptions options;
  options.frequency_penalty = 1;
  options.presence_penalty = 0.5;
  Sampler sampler = MakeSampler(options, 3);
  sampler.AddPrompt({0, 0, 1});
  std::vector<float> logits = {3, 2, 1};
  EXPECT_EQ(SampleFrom(sampler, logits), 0);  // 3
  EXPECT_EQ(SampleFrom(sampler, logits), 1);  // 3 - 1.5 < 2
  EXPECT_EQ(SampleFrom(sampler, logits), 0);  // 1.5 > 2 - 1.5
}

TEST(SamplerTest, SameSeedSameTokens) {
  SamplingOptions options;
  options.temperature = 1;
  for (uint64_t seed :
       {uint64_t{0}, uint64_t{1}, std::numeric_limits<uint64_t>::max()}) {
    options.seed = seed;
    Sampler a = MakeSampler(options, 200), b = MakeSampler(options, 200);
    for (uint32_t i = 0; i < 100; ++i) {
      EXPECT_EQ(SampleFrom(a, RandomLogits(200, i)),
                SampleFrom(b, RandomLogits(200, i)));
    }
  }
}

TEST(SamplerTest, OtherSeedsGiveOtherTokens) {
  SamplingOptions options;
  options.temperature = 1;
  Sampler a = MakeSampler(options, 200);
  options.seed = std::numeric_limits<uint64_t>::max();
  Sampler b = MakeSampler(options, 200);
  const std::vector<float> flat(200, 0.0f);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    equal += SampleFrom(a, flat) == SampleFrom(b, flat);
  }
  EXPECT_LT(equal, 10);
}

// The tokens that every machine and every version must draw: of 1000 equal
// logits, token floor(1000 u), where u is the upper 53 bits of the standard's
// mt19937_64 of seed 5489, whose 10000th output the standard fixes.
TEST(SamplerTest, DrawsByTheUpperBitsOfTheStandardsGenerator) {
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 5489;
  Sampler sampler = MakeSampler(options, 1000);
  const std::vector<float> flat(1000, 0.0f);
  std::mt19937_64 standard(5489);
  int32_t token = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = static_cast<double>(standard() >> 11) * 0x1p-53;
    token = SampleFrom(sampler, flat);
    ASSERT_EQ(token, static_cast<int32_t>(u * 1000)) << i;
  }
  // 9981545732273789042 / 2^64 = 0.5411
  EXPECT_EQ(token, 541);
}

TEST(SamplerTest, LargeVocabularyKeepsTheHeadThatTheReferenceKeeps) {
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

struct BadOption {
  const char* field;
  double value;
};

class SamplingOptionsTest : public ::testing::TestWithParam<BadOption> {};

TEST_P(SamplingOptionsTest, RejectsAndNamesTheField) {
  const std::string field = GetParam().field;
  SamplingOptions options;
  const std::map<std::string, double*> fields = {
      {"temperature", &options.temperature},
      {"top_p", &options.top_p},
      {"min_p", &options.min_p},
      {"repetition_penalty", &options.repetition_penalty},
      {"frequency_penalty", &options.frequency_penalty},
      {"presence_penalty", &options.presence_penalty}};
  if (field == "top_k") {
    options.top_k = static_cast<int64_t>(GetParam().value);
  } else {
    *fields.at(field) = GetParam().value;
  }
  const absl::Status status = Sampler::Create(options, 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), field)) << status;
}

constexpr double kNanOption = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfOption = std::numeric_limits<double>::infinity();

INSTANTIATE_TEST_SUITE_P(
    OutOfRange, SamplingOptionsTest,
    ::testing::Values(
        BadOption{"temperature", -0.1}, BadOption{"temperature", kNanOption},
        BadOption{"temperature", kInfOption}, BadOption{"top_k", -1},
        BadOption{"top_p", -0.01}, BadOption{"top_p", 1.01},
        BadOption{"top_p", kNanOption}, BadOption{"min_p", -0.01},
        BadOption{"min_p", 1.01}, BadOption{"min_p", kNanOption},
        BadOption{"repetition_penalty", 0}, BadOption{"repetition_penalty", -1},
        BadOption{"repetition_penalty", kNanOption},
        BadOption{"repetition_penalty", kInfOption},
        BadOption{"frequency_penalty", kNanOption},
        BadOption{"frequency_penalty", kInfOption},
        BadOption{"presence_penalty", kNanOption},
        BadOption{"presence_penalty", -kInfOption}));

TEST(SamplingOptionsTest, RejectsLogitBiasOnUnknownTokens) {
  for (int32_t token : {-1, 10, std::numeric_limits<int32_t>::max()}) {
    SamplingOptions options;
    options.logit_bias[token] = 1;
    const absl::Status status = options.Validate(10);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), "logit_bias")) << status;
  }
}

TEST(SamplingOptionsTest, RejectsLogitBiasThatIsNoNumber) {
  for (float value : {kNan, kInf}) {
    SamplingOptions options;
    options.logit_bias[1] = value;
    EXPECT_EQ(options.Validate(10).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SamplingOptionsTest, AcceptsTheEndsOfEveryRange) {
  SamplingOptions options;
  options.top_p = 0;
  options.min_p = 1;
  options.top_k = std::numeric_limits<int64_t>::max();
  options.temperature = std::numeric_limits<double>::max();
  options.logit_bias = {{0, -kInf}, {9, 3e38f}};
  EXPECT_TRUE(options.Validate(10).ok()) << options.Validate(10);
}

}  // namespace
}  // namespace nibble
