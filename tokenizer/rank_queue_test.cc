#include "tokenizer/rank_queue.h"

#include <random>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(RankQueueTest, PopsByRankThenPositionInAnyOrderOfPushes) {
  for (int seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    RankQueue queue;
    std::multiset<std::pair<uint32_t, uint32_t>> expected;
    for (int step = 0; step < 2000; ++step) {
      if (expected.empty() || random() % 5 < 3) {
        const uint32_t rank = random() % 7;
        // Ascending, as when a word is read, or anywhere.
        const uint32_t position = seed % 2 == 0 ? step : random() % 500;
        queue.Push({rank, position});
        expected.emplace(rank, position);
      } else {
        const RankQueue::Entry entry = queue.Pop();
        ASSERT_EQ(std::make_pair(entry.rank, entry.position),
                  *expected.begin());
        expected.erase(expected.begin());
      }
      ASSERT_EQ(queue.empty(), expected.empty());
    }
  }
}

}  // namespace
}  // namespace nibble
