#include "runtime/sampler.h"

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
#include "runtime/sampler_testing.h"

namespace nibble {
namespace {

using ::nibble::testing::Counts;
using ::nibble::testing::MakeSampler;
using ::nibble::testing::RandomLogits;
using ::nibble::testing::SampleFrom;
using ::nibble::testing::SamplingHistory;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(SamplerTest, GreedyTakesTheLargest) {
  Sampler sampler = MakeSampler({}, 4);
  EXPECT_EQ(SampleFrom(sampler, {0.5f, -1, 2, 1.9f}), 2);
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfEquals) {
  Sampler sampler = MakeSampler({}, 4);
  EXPECT_EQ(SampleFrom(sampler, {1, 3, 3, 3}), 1);
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

}  // namespace
}  // namespace nibble
