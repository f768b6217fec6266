// One layer of one sequence's key/value cache, as attention reads it.
//
//   KvView kv{DType::kBF16, kv_heads, head_dim, page_tokens, keys, values};
//   StoreKv(new_keys, new_values, /*first_position=*/length, kv);
//
// The cache is a list of pages; token t lives in page t / page_tokens. Keys and
// values have pages of their own, of one shape:
//
//   page   [kv_heads, page_tokens, head_dim]  of dtype, no padding
//
// so that the tokens of one head lie together: attention reads one head's keys
// as a single stream. A view owns nothing.
#ifndef NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_
#define NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

struct KvView {
  DType dtype = DType::kF32;  // kF32 or kBF16
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t page_tokens = 0;
  // [pages], each KvPageBytes() long and aligned to its elements.
  absl::Span<std::byte* const> key_pages;
  absl::Span<std::byte* const> value_pages;

  // Tokens that the pages have room for.
  int64_t capacity() const {
    return static_cast<int64_t>(key_pages.size()) * page_tokens;
  }
};

// Bytes of one page of keys, or of values.
int64_t KvPageBytes(const KvView& kv);

// Writes the keys and values of consecutive tokens at `first_position`,
// rounding to nearest even when the cache is bf16.
// keys, values: [tokens, kv_heads * head_dim], any stride.
// REQUIRES: first_position + tokens <= kv.capacity().
void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_
