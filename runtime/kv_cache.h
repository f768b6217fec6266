#ifndef NIBBLE_RUNTIME_KV_CACHE_H_
#define NIBBLE_RUNTIME_KV_CACHE_H_

// Memory for keys and values, in blocks that sequences borrow and give back.
//
//   KvLayout layout{DType::kBF16, config.layers, config.kv_heads,
//                   config.head_dim};
//   KvBlockPool pool(layout, /*max_bytes=*/int64_t{4} << 30);
//   absl::StatusOr<KvBlockPool::BlockId> block = pool.Allocate();
//   pool.Release(*block);
//
// A block holds kPageTokens consecutive tokens of one sequence in all layers:
//
//   layer 0 keys | layer 0 values | layer 1 keys | layer 1 values | ...
//
// each part a page of kPageTokens tokens, as kernels/attention/kv_view.h
// describes it, starting at a multiple of 64 bytes.
//
// Blocks are counted references, so that a beam and its parent share the text
// that they have in common (sequence.h copies a shared block before writing).
// Released memory is kept for the next sequence; it returns to the system with
// the pool. Blocks lie one after another in slabs of huge pages, whose memory
// the system hands out as it is first written. Not thread-safe: one engine, one
// thread at a time.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"

namespace nibble {

// Tokens of one page. A sequence wastes half a page on average, and allocates
// once per page: 64 tokens of SmolLM2-135M in f32 are 2.9 MB, of Llama-2-7B in
// bf16 32 MB.
inline constexpr int64_t kPageTokens = 64;

// Bytes of a slab, unless a block is larger or the pool's limit nearer. With
// blocks that were allocated one by one, and so mostly lay in pages of 4 KiB,
// attention of one token over 3,072 in the cache took up to 1.2 times as long.
inline constexpr int64_t kKvSlabBytes = int64_t{64} << 20;

struct KvLayout {
  DType dtype = DType::kF32;  // kF32, kBF16 or kI8
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;

  // One page: keys or values of one layer, rounded up to 64 bytes.
  int64_t page_bytes() const;
  int64_t block_bytes() const { return 2 * layers * page_bytes(); }
  // Bytes of the blocks that hold `tokens` tokens; saturates at INT64_MAX.
  int64_t BytesFor(int64_t tokens) const;
};

KvLayout MakeKvLayout(const DecoderConfig& config, DType dtype);

class KvBlockPool {
 public:
  using BlockId = int32_t;

  // REQUIRES: the layout's dtype is kF32, kBF16 or kI8 and its sizes are
  // positive.
  KvBlockPool(const KvLayout& layout, int64_t max_bytes);

  KvBlockPool(const KvBlockPool&) = delete;
  KvBlockPool& operator=(const KvBlockPool&) = delete;

  const KvLayout& layout() const { return layout_; }
  // Blocks that some sequence holds.
  int64_t blocks_in_use() const;
  // Bytes of the blocks that were ever handed out: what the system has given,
  // but for part of the last slab.
  int64_t bytes_allocated() const;
  int64_t max_bytes() const { return max_bytes_; }

  // A block with one reference and unspecified contents. ResourceExhausted
  // when `max_bytes` would be exceeded.
  absl::StatusOr<BlockId> Allocate();
  void AddReference(BlockId block);
  // Frees the block when its last reference goes.
  void Release(BlockId block);
  bool IsShared(BlockId block) const;
  // Copies all bytes of one block to another.
  void Copy(BlockId from, BlockId to);

  std::byte* KeyPage(BlockId block, int64_t layer);
  std::byte* ValuePage(BlockId block, int64_t layer);

 private:
  struct Block {
    std::byte* memory = nullptr;  // in a slab
    int32_t references = 0;
  };

  // Where a new block goes. REQUIRES: max_bytes_ leaves room for it.
  std::byte* NextBlockMemory();

  KvLayout layout_;
  int64_t max_bytes_;
  std::vector<AlignedBuffer> slabs_;
  int64_t blocks_left_in_slab_ = 0;
  std::vector<Block> blocks_;
  std::vector<BlockId> free_;
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_KV_CACHE_H_
