#include "runtime/sequence.h"

#include <utility>

#include "absl/log/check.h"

namespace nibble {
namespace {

int64_t BlocksFor(int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

}  // namespace

Sequence::Sequence(KvBlockPool& pool)
    : pool_(&pool),
      pages_(2 * pool.layout().layers),
      views_(pool.layout().layers) {
  const KvLayout& layout = pool.layout();
  for (KvView& view : views_) {
    view.dtype = layout.dtype;
    view.kv_heads = layout.kv_heads;
    view.head_dim = layout.head_dim;
    view.page_tokens = kPageTokens;
  }
}

Sequence::~Sequence() { ReleaseAll(); }

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(other.pool_),
      position_(std::exchange(other.position_, 0)),
      blocks_(std::exchange(other.blocks_, {})),
      pages_(std::exchange(other.pages_, {})),
      views_(std::exchange(other.views_, {})) {}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  ReleaseAll();
  pool_ = other.pool_;
  position_ = std::exchange(other.position_, 0);
  blocks_ = std::exchange(other.blocks_, {});
  pages_ = std::exchange(other.pages_, {});
  views_ = std::exchange(other.views_, {});
  return *this;
}

absl::Status Sequence::Reserve(int64_t tokens) {
  CHECK_GE(tokens, 0);
  const int64_t end = BlocksFor(position_ + tokens);
  bool changed = false;
  absl::Status status;
  for (int64_t i = position_ / kPageTokens; i < end; ++i) {
    const bool exists = i < static_cast<int64_t>(blocks_.size());
    if (exists && !pool_->IsShared(blocks_[i])) continue;
    absl::StatusOr<KvBlockPool::BlockId> block = pool_->Allocate();
    if (!block.ok()) {
      status = block.status();
      break;
    }
    changed = true;
    if (exists) {
      Replace(i, *block);
    } else {
      Append(*block);
    }
  }
  if (changed) RefreshViews();
  return status;
}

void Sequence::Append(KvBlockPool::BlockId block) {
  blocks_.push_back(block);
  for (int64_t layer = 0; layer < pool_->layout().layers; ++layer) {
    pages_[2 * layer].push_back(pool_->KeyPage(block, layer));
    pages_[2 * layer + 1].push_back(pool_->ValuePage(block, layer));
  }
}

// Copies what block `index` holds to `block`, which takes its place.
void Sequence::Replace(int64_t index, KvBlockPool::BlockId block) {
  pool_->Copy(blocks_[index], block);
  pool_->Release(blocks_[index]);
  blocks_[index] = block;
  for (int64_t layer = 0; layer < pool_->layout().layers; ++layer) {
    pages_[2 * layer][index] = pool_->KeyPage(block, layer);
    pages_[2 * layer + 1][index] = pool_->ValuePage(block, layer);
  }
}

void Sequence::RefreshViews() {
  for (size_t layer = 0; layer < views_.size(); ++layer) {
    views_[layer].key_pages = pages_[2 * layer];
    views_[layer].value_pages = pages_[2 * layer + 1];
  }
}

void Sequence::Advance(int64_t tokens) {
  CHECK_GE(tokens, 0);
  CHECK_LE(BlocksFor(position_ + tokens), static_cast<int64_t>(blocks_.size()));
  position_ += tokens;
}

void Sequence::Truncate(int64_t position) {
  CHECK_GE(position, 0);
  CHECK_LE(position, position_);
  position_ = position;
  const size_t kept = static_cast<size_t>(BlocksFor(position));
  while (blocks_.size() > kept) {
    pool_->Release(blocks_.back());
    blocks_.pop_back();
  }
  for (std::vector<std::byte*>& pages : pages_) pages.resize(kept);
  RefreshViews();
}

Sequence Sequence::Fork() const {
  Sequence fork(*pool_);
  const int64_t held = BlocksFor(position_);
  for (int64_t i = 0; i < held; ++i) {
    pool_->AddReference(blocks_[i]);
    fork.Append(blocks_[i]);
  }
  fork.position_ = position_;
  fork.RefreshViews();
  return fork;
}

void Sequence::ReleaseAll() {
  for (KvBlockPool::BlockId block : blocks_) pool_->Release(block);
  blocks_.clear();
}

}  // namespace nibble
