#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/log/check.h"
#include "absl/strings/str_cat.h"
#include "kernels/attention/kv_view.h"

namespace nibble {

int64_t KvLayout::page_bytes() const {
  constexpr int64_t kAlignment = AlignedBuffer::kAlignment;
  KvView page;
  page.dtype = dtype;
  page.kv_heads = kv_heads;
  page.head_dim = head_dim;
  page.page_tokens = kPageTokens;
  return (KvPageBytes(page) + kAlignment - 1) / kAlignment * kAlignment;
}

int64_t KvLayout::BytesFor(int64_t tokens) const {
  const int64_t blocks = tokens / kPageTokens + (tokens % kPageTokens != 0);
  if (blocks > std::numeric_limits<int64_t>::max() / block_bytes()) {
    return std::numeric_limits<int64_t>::max();
  }
  return blocks * block_bytes();
}

KvLayout MakeKvLayout(const DecoderConfig& config, DType dtype) {
  KvLayout layout;
  layout.dtype = dtype;
  layout.layers = config.layers;
  layout.kv_heads = config.kv_heads;
  layout.head_dim = config.head_dim;
  return layout;
}

KvBlockPool::KvBlockPool(const KvLayout& layout, int64_t max_bytes)
    : layout_(layout), max_bytes_(max_bytes) {
  CHECK(layout.dtype == DType::kF32 || layout.dtype == DType::kBF16 ||
        layout.dtype == DType::kI8);
  CHECK_GT(layout.layers, 0);
  CHECK_GT(layout.kv_heads, 0);
  CHECK_GT(layout.head_dim, 0);
}

int64_t KvBlockPool::blocks_in_use() const {
  return static_cast<int64_t>(blocks_.size() - free_.size());
}

int64_t KvBlockPool::bytes_allocated() const {
  return static_cast<int64_t>(blocks_.size()) * layout_.block_bytes();
}

absl::StatusOr<KvBlockPool::BlockId> KvBlockPool::Allocate() {
  if (!free_.empty()) {
    const BlockId block = free_.back();
    free_.pop_back();
    blocks_[block].references = 1;
    return block;
  }
  if (layout_.block_bytes() > max_bytes_ - bytes_allocated()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the KV cache is full: ", bytes_allocated(), " of ", max_bytes_,
        " bytes hold ", blocks_in_use() * kPageTokens,
        " tokens; use a shorter context or fewer sequences, or hold keys and "
        "values in fewer bits"));
  }
  blocks_.push_back({NextBlockMemory(), /*references=*/1});
  free_.reserve(blocks_.capacity());  // so that Release never allocates
  return static_cast<BlockId>(blocks_.size()) - 1;
}

std::byte* KvBlockPool::NextBlockMemory() {
  const int64_t bytes = layout_.block_bytes();
  if (blocks_left_in_slab_ == 0) {
    const int64_t left = (max_bytes_ - bytes_allocated()) / bytes;
    blocks_left_in_slab_ =
        std::min(left, std::max<int64_t>(1, kKvSlabBytes / bytes));
    slabs_.emplace_back(static_cast<size_t>(blocks_left_in_slab_ * bytes));
  }
  AlignedBuffer& slab = slabs_.back();
  const int64_t offset =
      static_cast<int64_t>(slab.size()) - blocks_left_in_slab_ * bytes;
  --blocks_left_in_slab_;
  return slab.data() + offset;
}

void KvBlockPool::AddReference(BlockId block) {
  DCHECK_GT(blocks_[block].references, 0);
  ++blocks_[block].references;
}

void KvBlockPool::Release(BlockId block) {
  DCHECK_GT(blocks_[block].references, 0);
  if (--blocks_[block].references == 0) free_.push_back(block);
}

bool KvBlockPool::IsShared(BlockId block) const {
  return blocks_[block].references > 1;
}

void KvBlockPool::Copy(BlockId from, BlockId to) {
  std::memcpy(blocks_[to].memory, blocks_[from].memory,
              static_cast<size_t>(layout_.block_bytes()));
}

std::byte* KvBlockPool::KeyPage(BlockId block, int64_t layer) {
  return blocks_[block].memory + 2 * layer * layout_.page_bytes();
}

std::byte* KvBlockPool::ValuePage(BlockId block, int64_t layer) {
  return KeyPage(block, layer) + layout_.page_bytes();
}

}  // namespace nibble
