#include "runtime/sequence.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/attention/kv_view.h"
#include "tensor/view.h"

namespace nibble {
namespace {

constexpr int64_t kHeadDim = 4;

class SequenceTest : public ::testing::Test {
 protected:
  static KvLayout Layout() {
    KvLayout layout;
    layout.layers = 2;
    layout.kv_heads = 1;
    layout.head_dim = kHeadDim;
    return layout;
  }

  // Appends `count` tokens whose keys and values in layer l are
  // mark + position + 1000 l.
  static void Write(Sequence& sequence, int64_t count, float mark) {
    ASSERT_TRUE(sequence.Reserve(count).ok());
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t position = sequence.position() + i;
        std::vector<float> row(kHeadDim, mark + position + 1000 * layer);
        StoreKv(MatrixView<const float>(row.data(), 1, kHeadDim),
                MatrixView<const float>(row.data(), 1, kHeadDim), position,
                sequence.layers()[layer]);
      }
    }
    sequence.Advance(count);
  }

  // The first element of the key (or value) of a token.
  static float Read(const Sequence& sequence, int64_t layer, int64_t position,
                    bool value = false) {
    const KvView& view = sequence.layers()[layer];
    const auto pages = value ? view.value_pages : view.key_pages;
    const float* page =
        reinterpret_cast<const float*>(pages[position / kPageTokens]);
    return page[position % kPageTokens * kHeadDim];
  }

  static void ExpectMarks(const Sequence& sequence, int64_t begin, int64_t end,
                          float mark) {
    for (int64_t position = begin; position < end; ++position) {
      for (int64_t layer = 0; layer < 2; ++layer) {
        const float expected = mark + position + 1000 * layer;
        ASSERT_EQ(Read(sequence, layer, position), expected) << position;
        ASSERT_EQ(Read(sequence, layer, position, true), expected) << position;
      }
    }
  }

  KvBlockPool pool_{Layout(), 8 * Layout().block_bytes()};
};

TEST_F(SequenceTest, GrowsByOnePageAtATime) {
  Sequence sequence(pool_);
  EXPECT_EQ(pool_.blocks_in_use(), 0);
  for (int64_t i = 0; i < 3 * kPageTokens; ++i) {
    Write(sequence, 1, 0);
    EXPECT_EQ(pool_.blocks_in_use(), i / kPageTokens + 1);
  }
  EXPECT_EQ(sequence.position(), 3 * kPageTokens);
  ExpectMarks(sequence, 0, 3 * kPageTokens, 0);
}

TEST_F(SequenceTest, ViewsHaveRoomForWhatWasReserved) {
  Sequence sequence(pool_);
  ASSERT_TRUE(sequence.Reserve(kPageTokens + 1).ok());
  ASSERT_EQ(sequence.layers().size(), 2u);
  for (const KvView& view : sequence.layers()) {
    EXPECT_GE(view.capacity(), kPageTokens + 1);
    EXPECT_EQ(view.page_tokens, kPageTokens);
    EXPECT_EQ(view.head_dim, kHeadDim);
  }
}

TEST_F(SequenceTest, DestructorGivesMemoryBack) {
  {
    Sequence sequence(pool_);
    Write(sequence, 100, 0);
    EXPECT_EQ(pool_.blocks_in_use(), 2);
  }
  EXPECT_EQ(pool_.blocks_in_use(), 0);
}

TEST_F(SequenceTest, TruncateForgetsAndGivesMemoryBack) {
  Sequence sequence(pool_);
  Write(sequence, 2 * kPageTokens + 5, 0);
  sequence.Truncate(kPageTokens + 3);
  EXPECT_EQ(sequence.position(), kPageTokens + 3);
  EXPECT_EQ(pool_.blocks_in_use(), 2);
  Write(sequence, 10, 500000);
  ExpectMarks(sequence, 0, kPageTokens + 3, 0);
  ExpectMarks(sequence, kPageTokens + 3, kPageTokens + 13, 500000);
  sequence.Truncate(0);
  EXPECT_EQ(pool_.blocks_in_use(), 0);
}

TEST_F(SequenceTest, ForkSharesThePastUntilOneOfThemWrites) {
  Sequence parent(pool_);
  Write(parent, kPageTokens + 10, 0);
  Sequence fork = parent.Fork();
  EXPECT_EQ(fork.position(), parent.position());
  EXPECT_EQ(pool_.blocks_in_use(), 2);

  Write(fork, 1, 100000);
  EXPECT_EQ(pool_.blocks_in_use(), 3);  // the page that was partly filled
  Write(parent, 1, 200000);
  EXPECT_EQ(pool_.blocks_in_use(), 3);  // now the parent's own
  ExpectMarks(parent, 0, kPageTokens + 10, 0);
  ExpectMarks(fork, 0, kPageTokens + 10, 0);
  ExpectMarks(fork, kPageTokens + 10, kPageTokens + 11, 100000);
  ExpectMarks(parent, kPageTokens + 10, kPageTokens + 11, 200000);
}

TEST_F(SequenceTest, ForkOfAFullPageCopiesNothing) {
  Sequence parent(pool_);
  Write(parent, kPageTokens, 0);
  Sequence fork = parent.Fork();
  Write(fork, 1, 100000);
  Write(parent, 1, 200000);
  EXPECT_EQ(pool_.blocks_in_use(), 3);
  ExpectMarks(fork, kPageTokens, kPageTokens + 1, 100000);
  ExpectMarks(parent, kPageTokens, kPageTokens + 1, 200000);
}

TEST_F(SequenceTest, ForkOutlivesItsParent) {
  Sequence fork(pool_);
  {
    Sequence parent(pool_);
    Write(parent, 20, 0);
    fork = parent.Fork();
  }
  EXPECT_EQ(pool_.blocks_in_use(), 1);
  ExpectMarks(fork, 0, 20, 0);
}

TEST_F(SequenceTest, ForkAfterTruncateSharesOnlyWhatIsLeft) {
  Sequence parent(pool_);
  Write(parent, 3 * kPageTokens, 0);
  parent.Truncate(5);
  Sequence fork = parent.Fork();
  Write(fork, kPageTokens, 100000);
  ExpectMarks(fork, 0, 5, 0);
  ExpectMarks(fork, 5, kPageTokens + 5, 100000);
  ExpectMarks(parent, 0, 5, 0);
}

TEST_F(SequenceTest, MovedSequenceKeepsItsViews) {
  Sequence first(pool_);
  Write(first, 70, 0);
  Sequence second = std::move(first);
  EXPECT_EQ(second.position(), 70);
  ExpectMarks(second, 0, 70, 0);
  Write(second, 70, 0);
  ExpectMarks(second, 0, 140, 0);
}

TEST_F(SequenceTest, FullPoolIsAnErrorAndNothingIsLost) {
  Sequence sequence(pool_);
  Write(sequence, 8 * kPageTokens - 1, 0);
  EXPECT_TRUE(sequence.Reserve(1).ok());
  const absl::Status status = sequence.Reserve(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sequence.position(), 8 * kPageTokens - 1);
  ExpectMarks(sequence, 0, 8 * kPageTokens - 1, 0);
  Write(sequence, 1, 0);
}

}  // namespace
}  // namespace nibble
