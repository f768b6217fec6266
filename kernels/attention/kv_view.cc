#include "kernels/attention/kv_view.h"

#include <algorithm>

#include "absl/log/check.h"
#include "kernels/convert/convert.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

void StoreRow(const float* row, const KvView& kv, std::byte* page,
              int64_t slot) {
  const size_t dim = static_cast<size_t>(kv.head_dim);
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const int64_t offset = (head * kv.page_tokens + slot) * kv.head_dim;
    const float* source = row + head * kv.head_dim;
    if (kv.dtype == DType::kF32) {
      std::copy_n(source, dim, reinterpret_cast<float*>(page) + offset);
    } else {
      F32ToBF16(absl::MakeConstSpan(source, dim),
                absl::MakeSpan(reinterpret_cast<BF16*>(page) + offset, dim));
    }
  }
}

}  // namespace

int64_t KvPageBytes(const KvView& kv) {
  return kv.kv_heads * kv.page_tokens * kv.head_dim * DTypeBlockBytes(kv.dtype);
}

void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv) {
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16);
  CHECK_EQ(keys.rows, values.rows);
  CHECK_EQ(keys.cols, kv.kv_heads * kv.head_dim);
  CHECK_EQ(values.cols, keys.cols);
  CHECK(first_position >= 0 && first_position + keys.rows <= kv.capacity())
      << "keys of " << keys.rows << " tokens at position " << first_position
      << " in a cache of " << kv.capacity();
  for (int64_t i = 0; i < keys.rows; ++i) {
    const int64_t page = (first_position + i) / kv.page_tokens;
    const int64_t slot = (first_position + i) % kv.page_tokens;
    StoreRow(keys.row(i), kv, kv.key_pages[page], slot);
    StoreRow(values.row(i), kv, kv.value_pages[page], slot);
  }
}

}  // namespace nibble
