// Where the bytes of an int8 cache page lie: for attention kernels and the code
// that fills pages; everyone else treats a page as KvPageBytes() bytes.
//
// A token's key or value of one KV head is head_dim signed codes and one scale;
// element i is code[i] * scale. D is head_dim rounded up to 16, a group is 16
// tokens, a quad 4 tokens of a group.
//
//   page    [kv_heads, page_tokens / 16] groups of 16 * D bytes,
//           then [kv_heads, page_tokens] scales, bf16,
//           then padding to a multiple of 64
//
//   key group    [D / 4, 16 tokens, 4 dims]    bytes, code + 128
//   value group  [4 quads, D dims, 4 tokens]   bytes, code
//
// So every 64-byte line is an operand of vpdpbusd as it stands: 16 keys times
// the same 4 dimensions of a query, or 4 tokens' values of 16 dimensions times
// the same 4 weights. Keys are stored unsigned for that instruction. Bytes
// beyond head_dim are never given a meaning.
#ifndef NIBBLE_KERNELS_ATTENTION_INT8_PAGE_H_
#define NIBBLE_KERNELS_ATTENTION_INT8_PAGE_H_

#include <cstddef>
#include <cstdint>

#include "tensor/bf16.h"

namespace nibble {

// Tokens of a group: the lanes of a 512-bit vector of 32-bit words.
inline constexpr int64_t kInt8Group = 16;

// Dimensions of a head at most.
inline constexpr int64_t kInt8MaxDim = 1024;

// What is added to a key's code to store it.
inline constexpr int32_t kInt8KeyOffset = 128;

struct Int8Page {
  int64_t kv_heads;
  int64_t head_dim;
  int64_t page_tokens;

  int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  int64_t group_bytes() const { return kInt8Group * padded_dim(); }
  int64_t bytes() const {
    const int64_t scale = static_cast<int64_t>(sizeof(BF16));
    return (kv_heads * page_tokens * (padded_dim() + scale) + 63) / 64 * 64;
  }

  // Byte of the page where the group of token `slot` starts.
  int64_t Group(int64_t kv_head, int64_t slot) const {
    return (kv_head * page_tokens + slot / kInt8Group * kInt8Group) *
           padded_dim();
  }
  // Byte of the page that holds the token's scale.
  int64_t Scale(int64_t kv_head, int64_t slot) const {
    return kv_heads * page_tokens * padded_dim() +
           (kv_head * page_tokens + slot) * static_cast<int64_t>(sizeof(BF16));
  }
  // Byte of its group that holds element `dim` of the token.
  int64_t Key(int64_t slot, int64_t dim) const {
    return dim / 4 * 64 + slot % kInt8Group * 4 + dim % 4;
  }
  int64_t Value(int64_t slot, int64_t dim) const {
    return slot % kInt8Group / 4 * (4 * padded_dim()) + dim * 4 + slot % 4;
  }
};

static_assert(sizeof(BF16) == 2);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_PAGE_H_
