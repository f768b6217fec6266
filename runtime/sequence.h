#ifndef NIBBLE_RUNTIME_SEQUENCE_H_
#define NIBBLE_RUNTIME_SEQUENCE_H_

// One text in the making: how many tokens the model has read, and where their
// keys and values are. Made by Engine::NewSequence, fed by Engine::Prefill and
// Engine::Decode.
//
//   Sequence sequence(pool);                     // pool: a KvBlockPool
//   absl::Status status = sequence.Reserve(tokens.size());
//   decoder.Forward({{tokens, sequence.position(), sequence.layers()}}, ...);
//   sequence.Advance(tokens.size());
//   sequence.Truncate(3);                        // forget all but three tokens
//   Sequence beam = sequence.Fork();             // shares the past
//
// A fork shares all blocks with its parent; Reserve copies a shared block
// before either of them writes to it. Memory is taken once every kPageTokens
// tokens and given back by the destructor or Truncate. Not thread-safe, and all
// sequences of a pool belong to the pool's thread.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/attention/kv_view.h"
#include "runtime/kv_cache.h"

namespace nibble {

class Sequence {
 public:
  // `pool` must outlive the sequence.
  explicit Sequence(KvBlockPool& pool);
  ~Sequence();

  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&& other) noexcept;

  // Tokens read so far: the position of the next one.
  int64_t position() const { return position_; }

  // Makes room for `tokens` more, in blocks that no other sequence shares.
  // ResourceExhausted when the pool is out of memory; then nothing has changed
  // but that some room may have been gained. REQUIRES: tokens >= 0.
  absl::Status Reserve(int64_t tokens);

  // One view per layer, with room for what was reserved; valid until the next
  // call that is not const.
  absl::Span<const KvView> layers() const { return views_; }

  // The model has written `tokens` tokens. REQUIRES: they were reserved.
  void Advance(int64_t tokens);

  // Forgets every token from `position` on and gives back what held only them.
  // REQUIRES: 0 <= position <= position().
  void Truncate(int64_t position);

  // A sequence with the same past.
  Sequence Fork() const;

 private:
  void Append(KvBlockPool::BlockId block);
  void Replace(int64_t index, KvBlockPool::BlockId block);
  void RefreshViews();
  void ReleaseAll();

  KvBlockPool* pool_;
  int64_t position_ = 0;
  std::vector<KvBlockPool::BlockId> blocks_;  // block t / kPageTokens
  // Page tables of all layers: pages_[2 * layer] keys, [2 * layer + 1] values.
  std::vector<std::vector<std::byte*>> pages_;
  std::vector<KvView> views_;  // [layers], spans of pages_
};

}  // namespace nibble

#endif  // NIBBLE_RUNTIME_SEQUENCE_H_
