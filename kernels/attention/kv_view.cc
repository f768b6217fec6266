#include "kernels/attention/kv_view.h"

#include <algorithm>
#include <cstring>

#include "absl/log/check.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/quantize_head.h"
#include "kernels/convert/convert.h"
#include "kernels/elementwise/kernel_table.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

// Elements of keys from which a call is worth a parallel region: about 10 us of
// work on one thread.
constexpr int64_t kMinParallelElements = 1 << 14;

void StoreFloatRow(const float* row, const KvView& kv, std::byte* page,
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

Int8Page LayoutOf(const KvView& kv) {
  return {kv.kv_heads, kv.head_dim, kv.page_tokens};
}

// Writes the codes [head_dim] of one token. Each byte belongs to one token, so
// threads may share a line.
void PlaceKey(const int8_t* codes, const Int8Page& layout, int64_t slot,
              std::byte* group) {
  for (int64_t i = 0; i < layout.head_dim; i += 4) {
    uint32_t word = 0;
    std::memcpy(&word, codes + i, 4);
    word ^= 0x80808080u;  // + kInt8KeyOffset, in every byte
    std::memcpy(group + layout.Key(slot, i), &word, 4);
  }
}

void PlaceValue(const int8_t* codes, const Int8Page& layout, int64_t slot,
                std::byte* group) {
  std::byte* const to = group + layout.Value(slot, 0);
  for (int64_t i = 0; i < layout.head_dim; ++i) {
    to[4 * i] = static_cast<std::byte>(codes[i]);
  }
}

template <class Place>
void StoreInt8Row(const float* row, const Int8Page& layout,
                  const QuantizeHeadKernels& kernels, std::byte* page,
                  int64_t slot, Place place) {
  int8_t codes[kInt8MaxDim + 3] = {};  // PlaceKey reads whole words
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    const BF16 scale =
        kernels.quantize(row + head * layout.head_dim, layout.head_dim, codes);
    place(codes, layout, slot, page + layout.Group(head, slot));
    std::memcpy(page + layout.Scale(head, slot), &scale, sizeof(scale));
  }
}

void CheckStore(MatrixView<const float> keys, MatrixView<const float> values,
                int64_t first_position, const KvView& kv) {
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16 ||
        kv.dtype == DType::kI8);
  CHECK(kv.dtype != DType::kI8 ||
        (kv.page_tokens % kInt8Group == 0 && kv.head_dim <= kInt8MaxDim))
      << "an int8 cache with pages of " << kv.page_tokens
      << " tokens and heads of " << kv.head_dim;
  CHECK_EQ(keys.rows, values.rows);
  CHECK_EQ(keys.cols, kv.kv_heads * kv.head_dim);
  CHECK_EQ(values.cols, keys.cols);
  CHECK(first_position >= 0 && first_position + keys.rows <= kv.capacity())
      << "keys of " << keys.rows << " tokens at position " << first_position
      << " in a cache of " << kv.capacity();
}

}  // namespace

int64_t KvPageBytes(const KvView& kv) {
  if (kv.dtype == DType::kI8) return LayoutOf(kv).bytes();
  return kv.kv_heads * kv.page_tokens * kv.head_dim * DTypeBlockBytes(kv.dtype);
}

void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv) {
  CheckStore(keys, values, first_position, kv);
  const QuantizeHeadKernels& kernels = SelectKernels(QuantizeHeadTable());
  for (int64_t i = 0; i < keys.rows; ++i) {
    const int64_t page = (first_position + i) / kv.page_tokens;
    const int64_t slot = (first_position + i) % kv.page_tokens;
    if (kv.dtype == DType::kI8) {
      StoreInt8Row(keys.row(i), LayoutOf(kv), kernels, kv.key_pages[page], slot,
                   PlaceKey);
      StoreInt8Row(values.row(i), LayoutOf(kv), kernels, kv.value_pages[page],
                   slot, PlaceValue);
    } else {
      StoreFloatRow(keys.row(i), kv, kv.key_pages[page], slot);
      StoreFloatRow(values.row(i), kv, kv.value_pages[page], slot);
    }
  }
}

void StoreKv(MatrixView<const float> keys, MatrixView<const float> values,
             int64_t first_position, const KvView& kv, ThreadPool& pool) {
  if (keys.rows * keys.cols < kMinParallelElements) {
    StoreKv(keys, values, first_position, kv);
    return;
  }
  pool.ParallelFor(keys.rows, [&](int64_t begin, int64_t end, int) {
    StoreKv(keys.Rows(begin, end - begin), values.Rows(begin, end - begin),
            first_position + begin, kv);
  });
}

}  // namespace nibble
