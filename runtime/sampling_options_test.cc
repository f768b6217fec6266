// Which options the sampler takes.

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "runtime/sampler.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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

TEST(LogitBiasTest, RejectsUnknownTokens) {
  for (int32_t token : {-1, 10, std::numeric_limits<int32_t>::max()}) {
    SamplingOptions options;
    options.logit_bias[token] = 1;
    const absl::Status status = options.Validate(10);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), "logit_bias")) << status;
  }
}

TEST(LogitBiasTest, RejectsWhatIsNoNumber) {
  for (float value : {kNan, kInf}) {
    SamplingOptions options;
    options.logit_bias[1] = value;
    EXPECT_EQ(options.Validate(10).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SamplingOptionsRangeTest, AcceptsTheEndsOfEveryRange) {
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
