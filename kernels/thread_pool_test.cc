#include "kernels/thread_pool.h"

#include <time.h>

#include <atomic>
#include <chrono>  // NOLINT
#include <cstdint>
#include <cstring>
#include <thread>  // NOLINT
#include <vector>

#include "gtest/gtest.h"

namespace nibble {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryIndexOnceInContiguousSharesEqualWithinOne) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 2, 3, 7, 8, 9, 100, 1001}) {
    std::vector<int> runs(count, 0);
    std::vector<int64_t> share(GetParam(), 0);
    pool.ParallelFor(count, [&](int64_t begin, int64_t end, int thread) {
      ASSERT_LT(begin, end);
      ASSERT_EQ(share[thread], 0) << "one call per thread";
      share[thread] = end - begin;
      for (int64_t i = begin; i < end; ++i) ++runs[i];
    });
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(runs[i], 1) << i;
    if (count <= 1) continue;  // inline
    for (int64_t size : share) {
      EXPECT_GE(size, count / GetParam());
      EXPECT_LE(size, (count + GetParam() - 1) / GetParam());
    }
  }
}

TEST_P(ThreadPoolTest, GivesTheSameShareEveryTime) {
  ThreadPool pool(GetParam());
  std::vector<int> first(100), again(100);
  const auto record = [&](std::vector<int>& owner) {
    pool.ParallelFor(100, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) owner[i] = thread;
    });
  };
  record(first);
  for (int i = 0; i < 20; ++i) {
    record(again);
    ASSERT_EQ(first, again);
  }
}

TEST_P(ThreadPoolTest, StealingRunsEveryIndexOnceInPiecesOfTheGrain) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 2, 3, 7, 8, 9, 100, 1001}) {
    for (int64_t grain : {1, 3, 8, 2000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      pool.ParallelForStealing(count, grain,
                               [&](int64_t begin, int64_t end, int thread) {
                                 ASSERT_LT(begin, end);
                                 ASSERT_EQ(begin % grain, 0);
                                 ASSERT_TRUE(end % grain == 0 || end == count);
                                 ASSERT_GE(thread, 0);
                                 ASSERT_LT(thread, GetParam());
                                 for (int64_t i = begin; i < end; ++i) {
                                   runs[static_cast<size_t>(i)].fetch_add(1);
                                 }
                               });
      for (const std::atomic<int>& run : runs) ASSERT_EQ(run.load(), 1);
    }
  }
}

TEST_P(ThreadPoolTest, StealingTakesTheShareOfAThreadThatIsStuck) {
  const int threads = GetParam();
  if (threads == 1) GTEST_SKIP() << "there is nobody to steal from";
  ThreadPool pool(threads);
  // Thread 0 waits in its first piece, at most half of its share, until the
  // others have done everything else.
  const int64_t count = 64 * threads;
  std::atomic<int64_t> done_by_others(0);
  int64_t done_by_first = 0;
  pool.ParallelForStealing(
      count, 1, [&](int64_t begin, int64_t end, int thread) {
        if (thread > 0) {
          done_by_others.fetch_add(end - begin);
          return;
        }
        done_by_first += end - begin;
        while (done_by_others.load() + done_by_first < count) {
          std::this_thread::yield();
        }
      });
  EXPECT_LE(done_by_first, 32);
  EXPECT_EQ(done_by_others.load() + done_by_first, count);
}

TEST_P(ThreadPoolTest, ManyStealingRegionsLoseNothing) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> sum(0);
  for (int64_t round = 0; round < 2000; ++round) {
    pool.ParallelForStealing(37, 2, [&](int64_t begin, int64_t end, int) {
      sum.fetch_add(end - begin);
    });
  }
  EXPECT_EQ(sum.load(), 2000 * 37);
}

TEST_P(ThreadPoolTest, ManyRegionsSeeEachOthersWrites) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 5000; ++round) {
    // Written by another thread in the round before, for odd thread counts.
    pool.ParallelFor(64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[i] += i;
    });
    std::vector<int64_t> reversed(values.rbegin(), values.rend());
    values.swap(reversed);
  }
  for (int64_t i = 0; i < 64; ++i) {
    // 2500 rounds at index i and as many at 63 - i.
    ASSERT_EQ(values[i], 2500 * 63) << i;
  }
}

TEST_P(ThreadPoolTest, WakesWorkersThatHaveGoneToSleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::vector<int> runs(GetParam(), 0);
    pool.ParallelFor(GetParam(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) ++runs[i];
    });
    for (int run : runs) ASSERT_EQ(run, 1);
  }
}

TEST_P(ThreadPoolTest, WaitsForSlowWorkers) {
  ThreadPool pool(GetParam());
  std::vector<int> done(GetParam(), 0);
  pool.ParallelFor(GetParam(), [&](int64_t begin, int64_t end, int thread) {
    if (thread != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    for (int64_t i = begin; i < end; ++i) done[i] = 1;
  });
  for (int d : done) EXPECT_EQ(d, 1);
}

// More threads than this machine may have cores, too: they block, not spin.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest,
                         ::testing::Values(1, 2, 3, 4, 9));

TEST(ThreadPool, OneThreadRunsInTheCaller) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  bool ran = false;
  pool.ParallelFor(10, [&](int64_t begin, int64_t end, int thread) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 10);
    EXPECT_EQ(thread, 0);
    ran = true;
  });
  EXPECT_TRUE(ran);
}

TEST(ThreadPool, StopsAtOnceWhenUnused) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(4);
    EXPECT_EQ(pool.threads(), 4);
  }
}

// CPU time that all threads of the process have used.
int64_t CpuNanoseconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return int64_t{1000000000} * time.tv_sec + time.tv_nsec;
}

// Workers spin for some tens of microseconds, then sleep. The bound is on CPU
// time, which busy neighbours do not lengthen: a worker that went on spinning
// would use most of the half second.
TEST(ThreadPool, IdleWorkersUseNoCpu) {
  ThreadPool pool(2);
  const auto work = [&] { pool.ParallelFor(2, [](int64_t, int64_t, int) {}); };
  work();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const int64_t before = CpuNanoseconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(CpuNanoseconds() - before, 20 * 1000 * 1000);
  work();
}

TEST(ThreadPool, ScratchIsAlignedAndKeptUntilMoreIsAsked) {
  ThreadPool pool(2);
  std::byte* small = pool.Scratch(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(small) % 64, 0u);
  std::memset(small, 1, 1000);
  EXPECT_EQ(pool.Scratch(10), small);
  EXPECT_EQ(pool.Scratch(1000), small);
  std::byte* large = pool.Scratch(1 << 20);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(large) % 64, 0u);
  std::memset(large, 2, 1 << 20);
  EXPECT_EQ(pool.Scratch(1000), large);
}

}  // namespace
}  // namespace nibble
