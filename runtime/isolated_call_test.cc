#include "runtime/isolated_call.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

IsolationLimits OneSecond() {
  IsolationLimits limits;
  limits.cpu_seconds = 1;
  return limits;
}

TEST(RunIsolated, ReturnsTheResult) {
  const std::string large(1 << 20, 'x');
  const absl::StatusOr<std::string> result =
      RunIsolated([&]() -> absl::StatusOr<std::string> { return large; }, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, large);
}

TEST(RunIsolated, ReturnsAnEmptyResult) {
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> { return std::string(); }, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, "");
}

TEST(RunIsolated, ReturnsTheError) {
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> {
        return absl::InvalidArgumentError("line 3: no such filter");
      },
      {});
  EXPECT_EQ(result.status(),
            absl::InvalidArgumentError("line 3: no such filter"));
}

TEST(RunIsolated, ChangesNothingOfTheCaller) {
  int changed = 0;
  ASSERT_TRUE(RunIsolated(
                  [&]() -> absl::StatusOr<std::string> {
                    changed = 1;
                    return std::string("done");
                  },
                  {})
                  .ok());
  EXPECT_EQ(changed, 0);
}

TEST(RunIsolated, EndsAnEndlessLoop) {
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> {
        volatile uint64_t turns = 0;
        while (true) turns = turns + 1;
      },
      OneSecond());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(result.status().message(), HasSubstr("took more than 1 s"));
}

TEST(RunIsolated, SurvivesACrash) {
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> { std::abort(); }, OneSecond());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RunIsolated, RefusesAResultAboveTheLimit) {
  IsolationLimits limits = OneSecond();
  limits.result_bytes = 1000;
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> { return std::string(1001, 'x'); },
      limits);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RunIsolated, EndsAFunctionThatTakesAllMemory) {
  const absl::StatusOr<std::string> result = RunIsolated(
      []() -> absl::StatusOr<std::string> {
        std::vector<std::string> taken;
        while (true) taken.emplace_back(1 << 20, 'x');
      },
      {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace nibble
