// One layer of one sequence's key/value cache, as attention reads it.
//
//   KvView kv{DType::kBF16, kv_heads, head_dim, page_tokens, keys, values};
//   StoreKv(new_keys, new_values, /*first_position=*/length, kv);
//
// The cache is a list of pages; token t lives in page t / page_tokens. Keys and
// values have pages of their own, of one size, KvPageBytes():
//
//   f32, bf16  [kv_heads, page_tokens, head_dim] of the dtype, no padding
//   int8       codes and one bf16 scale per token and KV head, in the order
//              that the kernels multiply in: int8_page.h
//
// so that the tokens of one head lie together: attention reads one head's keys
// as a single stream. A copy of a page's bytes is a copy of its tokens. A view
// owns nothing.
#ifndef NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_
#define NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace nibble {

struct KvView {
  DType dtype = DType::kF32;  // kF32, kBF16 or kI8
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t page_tokens = 0;  // kI8: a multiple of 16
  // [pages], each KvPageBytes() long and aligned to its elements; kI8: to 64.
  absl::Span<std::byte* const> key_pages;
  absl::Span<std::byte* const> value_pages;

  // Tokens that the pages have room for.
  int64_t capacity() const {
    return static_cast<int64_t>(key_pages.size()) * page_tokens;
  }
};

// Bytes of one page of keys, or of values; kI8: a multiple of 64.
int64_t KvPageBytes(const KvView& kv);

// Writes the keys and values of consecutive tokens at `first_position`. bf16
// rounds to nearest even. int8 rounds each token and KV head to 127 steps of
// its largest magnitude: an error of at most 0.4% of that (quantize_head.h).
// keys, values: [tokens, kv_heads * head_dim], any stride.
// Calls for different tokens may run at the same time.
// REQUIRES: first_position + tokens <= kv.capacity().
void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv);

// The same, with the tokens shared among threads where that pays.
void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_KERNELS_ATTENTION_KV_VIEW_H_
