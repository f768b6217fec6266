// A piece of attention that one thread computes.
//
// Attention of one KV head is a small matrix product: the query heads that
// share it, for all queries, are the rows of one matrix. Row r of a KV head is
// query r / group, head kv_head * group + r % group, with group = heads /
// kv_heads. A task is a range of rows against a range of key blocks.
#ifndef NIBBLE_KERNELS_ATTENTION_ATTENTION_TASK_H_
#define NIBBLE_KERNELS_ATTENTION_ATTENTION_TASK_H_

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention_sequence.h"

namespace nibble {

// Keys of a block, which starts at a multiple of it: the unit in which partial
// results are made and joined. It fixes the order of summation, so changing it
// changes bits. Joining passes over head_dim twice per row and block, where the
// products pass over it 2 * 256 times: below 1%. A longer block would leave
// short caches fewer parts to split among threads.
inline constexpr int64_t kKeyBlock = 256;

// Rows of a task at most: what shares one unpacking of keys and values, which
// takes about as many instructions as the products of 4 rows (68 against 16 a
// row for 16 tokens of 8 bf16 dimensions). 96 rows are 16 tiles of 6, and keep
// that near 4%; their queries, scores and sums at head_dim 128 are 240 KiB, for
// L2.
inline constexpr int64_t kMaxRows = 96;

struct KeyRange {
  int64_t begin;
  int64_t end;
};

// Keys that query `token` of the sequence sees; may be empty.
inline KeyRange VisibleKeys(const AttentionSequence& sequence,
                            const AttentionParams& params, int64_t token) {
  const int64_t position = sequence.first_position + token;
  const int64_t begin = params.window > 0
                            ? std::max<int64_t>(0, position - params.window + 1)
                            : 0;
  const int64_t end = params.causal ? std::min(sequence.kv_length, position + 1)
                                    : sequence.kv_length;
  return {std::min(begin, end), end};
}

struct AttentionTask {
  const AttentionSequence* sequence;
  const AttentionParams* params;
  int64_t kv_head;
  int64_t row_begin;  // rows, row_end - row_begin <= kMaxRows
  int64_t row_end;
  int64_t block_begin;  // key blocks
  int64_t block_end;
  // Null: the task has all blocks its rows see, and writes their outputs.
  // Otherwise it writes one partial result per block, PartialFloats() each,
  // that of block_begin first.
  float* partials;
};

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_ATTENTION_TASK_H_
