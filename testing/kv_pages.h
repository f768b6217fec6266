// A KV cache of one sequence for tests of the decoder: all pages allocated at
// once, and filled with NaN, so that a read of a token that was never written
// shows.
//
//   KvPages cache(decoder.config(), DType::kF32, /*capacity=*/256);
//   slice.layers = cache.layers();
#ifndef NIBBLE_TESTING_KV_PAGES_H_
#define NIBBLE_TESTING_KV_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "kernels/attention/kv_view.h"
#include "models/decoder_config.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"

namespace nibble::testing {

class KvPages {
 public:
  KvPages(const DecoderConfig& config, DType dtype, int64_t capacity,
          int64_t page_tokens = 16) {
    const int64_t pages = (capacity + page_tokens - 1) / page_tokens;
    KvView view;
    view.dtype = dtype;
    view.kv_heads = config.kv_heads;
    view.head_dim = config.head_dim;
    view.page_tokens = page_tokens;
    const size_t page_bytes = static_cast<size_t>(KvPageBytes(view));
    const size_t pages_in_all = static_cast<size_t>(2 * config.layers * pages);
    memory_ = AlignedBuffer(page_bytes * pages_in_all);
    // All ones are a NaN in f32 and in bf16.
    std::memset(memory_.data(), 0xFF, memory_.size());
    for (size_t i = 0; i < pages_in_all; ++i) {
      pages_.push_back(memory_.data() + i * page_bytes);
    }
    const absl::Span<std::byte* const> all = pages_;
    const size_t count = static_cast<size_t>(pages);
    for (size_t layer = 0; layer < static_cast<size_t>(config.layers);
         ++layer) {
      view.key_pages = all.subspan(2 * layer * count, count);
      view.value_pages = all.subspan((2 * layer + 1) * count, count);
      layers_.push_back(view);
    }
  }

  // Views point into the object.
  KvPages(const KvPages&) = delete;
  KvPages& operator=(const KvPages&) = delete;

  absl::Span<const KvView> layers() const { return layers_; }

 private:
  AlignedBuffer memory_;
  std::vector<std::byte*> pages_;  // [layers, keys and values, pages]
  std::vector<KvView> layers_;
};

}  // namespace nibble::testing

#endif  // NIBBLE_TESTING_KV_PAGES_H_
