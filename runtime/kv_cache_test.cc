#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "kernels/attention/kv_view.h"

namespace nibble {
namespace {

KvLayout SmallLayout(DType dtype = DType::kF32) {
  KvLayout layout;
  layout.dtype = dtype;
  layout.layers = 3;
  layout.kv_heads = 2;
  layout.head_dim = 8;
  return layout;
}

TEST(KvLayoutTest, PagesHaveTheSizeThatAttentionExpects) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const KvLayout layout = SmallLayout(dtype);
    KvView view;
    view.dtype = dtype;
    view.kv_heads = layout.kv_heads;
    view.head_dim = layout.head_dim;
    view.page_tokens = kPageTokens;
    EXPECT_EQ(layout.page_bytes(), KvPageBytes(view));
  }
}

TEST(KvLayoutTest, BytesForCountsWholeBlocksAndSaturates) {
  const KvLayout layout = SmallLayout();
  EXPECT_EQ(layout.BytesFor(0), 0);
  EXPECT_EQ(layout.BytesFor(1), layout.block_bytes());
  EXPECT_EQ(layout.BytesFor(kPageTokens), layout.block_bytes());
  EXPECT_EQ(layout.BytesFor(kPageTokens + 1), 2 * layout.block_bytes());
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(layout.BytesFor(kMax), kMax);
}

TEST(KvBlockPoolTest, PagesOfABlockDoNotOverlapAndAreAligned) {
  const KvLayout layout = SmallLayout();
  KvBlockPool pool(layout, 10 * layout.block_bytes());
  absl::StatusOr<KvBlockPool::BlockId> block = pool.Allocate();
  ASSERT_TRUE(block.ok());
  std::vector<std::byte*> pages;
  for (int64_t layer = 0; layer < layout.layers; ++layer) {
    pages.push_back(pool.KeyPage(*block, layer));
    pages.push_back(pool.ValuePage(*block, layer));
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pages[i]) % 64, 0u);
    std::memset(pages[i], static_cast<int>(i + 1), layout.page_bytes());
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    for (int64_t j = 0; j < layout.page_bytes(); ++j) {
      ASSERT_EQ(pages[i][j], static_cast<std::byte>(i + 1));
    }
  }
}

TEST(KvBlockPoolTest, BlocksOfAllSlabsAreApart) {
  KvLayout layout = SmallLayout(DType::kI8);
  layout.layers = 1024;  // about 4 MiB a block: several slabs below
  const int64_t count = 2 * (kKvSlabBytes / layout.block_bytes()) + 3;
  KvBlockPool pool(layout, count * layout.block_bytes());
  std::vector<std::byte*> starts;
  for (int64_t i = 0; i < count; ++i) {
    const absl::StatusOr<KvBlockPool::BlockId> block = pool.Allocate();
    ASSERT_TRUE(block.ok()) << block.status();
    starts.push_back(pool.KeyPage(*block, 0));
    EXPECT_EQ(pool.bytes_allocated(), (i + 1) * layout.block_bytes());
  }
  EXPECT_FALSE(pool.Allocate().ok());
  std::sort(starts.begin(), starts.end());
  for (size_t i = 1; i < starts.size(); ++i) {
    EXPECT_GE(starts[i] - starts[i - 1], layout.block_bytes());
  }
}

TEST(KvBlockPoolTest, FullPoolSaysWhatToDo) {
  const KvLayout layout = SmallLayout();
  KvBlockPool pool(layout, 2 * layout.block_bytes() + 1);
  EXPECT_TRUE(pool.Allocate().ok());
  EXPECT_TRUE(pool.Allocate().ok());
  const absl::Status status = pool.Allocate().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(status.message(), "shorter context")) << status;
}

TEST(KvBlockPoolTest, ReleasedBlocksAreUsedAgain) {
  const KvLayout layout = SmallLayout();
  KvBlockPool pool(layout, layout.block_bytes());
  for (int round = 0; round < 3; ++round) {
    absl::StatusOr<KvBlockPool::BlockId> block = pool.Allocate();
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_EQ(pool.blocks_in_use(), 1);
    pool.Release(*block);
    EXPECT_EQ(pool.blocks_in_use(), 0);
  }
  EXPECT_EQ(pool.bytes_allocated(), layout.block_bytes());
}

TEST(KvBlockPoolTest, BlockLivesUntilItsLastReferenceGoes) {
  const KvLayout layout = SmallLayout();
  KvBlockPool pool(layout, layout.block_bytes());
  absl::StatusOr<KvBlockPool::BlockId> block = pool.Allocate();
  ASSERT_TRUE(block.ok());
  EXPECT_FALSE(pool.IsShared(*block));
  pool.AddReference(*block);
  EXPECT_TRUE(pool.IsShared(*block));
  pool.Release(*block);
  EXPECT_FALSE(pool.IsShared(*block));
  EXPECT_EQ(pool.blocks_in_use(), 1);
  pool.Release(*block);
  EXPECT_EQ(pool.blocks_in_use(), 0);
}

}  // namespace
}  // namespace nibble
