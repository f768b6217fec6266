#include "apps/benchmark/measure.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "apps/benchmark/limit_probe.h"
#include "apps/benchmark/system_info.h"
#include "gtest/gtest.h"
#include "kernels/machine_limits.h"
#include "kernels/thread_pool.h"

namespace nibble {
namespace {

constexpr int64_t kSmallBuffer = 1 << 20;

class MeasureTest : public ::testing::Test {
 protected:
  MeasureTest() : pool_(1), probe_(MultiplyKind::kF32, kSmallBuffer, pool_) {}

  ThreadPool pool_;
  LimitProbe probe_;
};

TEST_F(MeasureTest, GivesTheMedianOfTheRepetitionsMeanUnits) {
  // After the unit that does not count, two a repetition: means 2, 4 and 30 ms.
  const std::vector<double> seconds = {9, .001, .003, .004, .004, .020, .040};
  size_t next = 0;
  Work work;
  work.units = 2;
  work.run = [&]() -> absl::StatusOr<double> { return seconds[next++]; };
  MeasureOptions options;
  options.repetitions = 3;
  const auto measured = MeasureInTurn({work}, probe_, options);
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(next, seconds.size());
  const Summary& ms = (*measured)[0].milliseconds;
  EXPECT_DOUBLE_EQ(ms.median, 4);
  EXPECT_DOUBLE_EQ(ms.min, 2);
  EXPECT_DOUBLE_EQ(ms.max, 30);
  EXPECT_GT((*measured)[0].read_bytes_per_second, 0);
  EXPECT_GT((*measured)[0].macs_per_second, 0);
}

TEST_F(MeasureTest, RunsUnitsUntilTheLeastTimeIsFull) {
  int runs = 0;
  Work work;
  work.run = [&]() -> absl::StatusOr<double> {
    ++runs;
    return 0.01;
  };
  MeasureOptions options;
  options.repetitions = 2;
  options.min_seconds = 0.055;
  options.max_seconds = 1e9;
  ASSERT_TRUE(MeasureInTurn({work}, probe_, options).ok());
  EXPECT_EQ(runs, 1 + 2 * 6);
}

TEST_F(MeasureTest, EndsARepetitionThatIsMostlySamples) {
  int runs = 0;
  Work work;
  work.units_between_samples = 1;
  work.run = [&]() -> absl::StatusOr<double> { return ++runs, 1e-9; };
  MeasureOptions options;
  options.repetitions = 1;
  options.max_seconds = 0;
  const auto measured = MeasureInTurn({work}, probe_, options);
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(runs, 2) << "one to warm up, and at least one that counts";
  EXPECT_DOUBLE_EQ((*measured)[0].milliseconds.median, 1e-6);
}

TEST_F(MeasureTest, VisitsEveryWorkInEachRepetition) {
  std::string order;
  Work a, b;
  a.units = b.units = 1;
  a.run = [&]() -> absl::StatusOr<double> { return order += 'a', 0.1; };
  b.run = [&]() -> absl::StatusOr<double> { return order += 'b', 0.1; };
  MeasureOptions options;
  options.repetitions = 3;
  ASSERT_TRUE(MeasureInTurn({a, b}, probe_, options).ok());
  EXPECT_EQ(order, "abababab");
}

TEST_F(MeasureTest, EndsWithTheFirstErrorOfAWork) {
  int runs = 0;
  Work work;
  work.units = 1;
  work.run = [&]() -> absl::StatusOr<double> {
    if (++runs == 3) return absl::InternalError("broken");
    return 0.1;
  };
  const auto measured = MeasureInTurn({work}, probe_, {});
  EXPECT_EQ(measured.status(), absl::InternalError("broken"));
  EXPECT_EQ(runs, 3);
}

TEST_F(MeasureTest, EndsWhenItIsCancelled) {
  int runs = 0;
  Work work;
  work.units = 1;
  work.run = [&]() -> absl::StatusOr<double> { return ++runs, 0.1; };
  MeasureOptions options;
  options.cancelled = [&] { return runs == 2; };
  EXPECT_TRUE(
      absl::IsCancelled(MeasureInTurn({work}, probe_, options).status()));
  EXPECT_EQ(runs, 2);
}

TEST_F(MeasureTest, ProbeForgetsWhatItHasReported) {
  probe_.Sample();
  const LimitProbe::Rates first = probe_.Take();
  EXPECT_GT(first.read_bytes_per_second, 0);
  EXPECT_GT(first.macs_per_second, 0);
  EXPECT_DEATH(probe_.Take(), "no sample");
}

TEST(ReadBufferBytes, ExceedsTheCacheManyTimesButNotTheMemory) {
  SystemInfo system;
  constexpr int64_t kMany = int64_t{1} << 40;
  EXPECT_EQ(ReadBufferBytes(system, kMany), int64_t{256} << 20);
  system.caches = {{3, "Unified", int64_t{256} << 20, "0"}};
  EXPECT_EQ(ReadBufferBytes(system, kMany), int64_t{2} << 30);
  EXPECT_EQ(ReadBufferBytes(system, int64_t{1} << 30), int64_t{256} << 20);
  EXPECT_EQ(ReadBufferBytes(system, 1000), 1 << 20);
}

}  // namespace
}  // namespace nibble
