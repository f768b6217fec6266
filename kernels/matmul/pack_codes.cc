#include "kernels/matmul/pack_codes.h"

#include <algorithm>
#include <cstring>

#include "absl/log/check.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

constexpr int64_t kRecordOutputs = 2 * kPackedTileOutputs;

// A scale or minimum as the layout stores it, the `index`th from `numbers` on.
void StoreNumber(const PackedLayout& layout, float value, int64_t index,
                 std::byte* numbers) {
  std::byte* at = numbers + index * layout.scale_bytes();
  if (layout.wide_scales) {
    std::memcpy(at, &value, sizeof(value));
  } else {
    const F16 narrow = ToF16(value);
    std::memcpy(at, &narrow, sizeof(narrow));
  }
}

// Scales and zero points or minimums of one record. Outputs past the matrix
// have scale 0 and minimum 0.
void PackGroups(const PackedLayout& layout, int64_t rows,
                const CodedRows& coded, std::byte* record) {
  const int64_t groups = layout.groups();
  std::byte* zeros = record + layout.zeros_offset();
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < rows; ++n) {
      const int64_t index = g * kRecordOutputs + n;
      StoreNumber(layout, coded.scales[n * groups + g], index, record);
      if (layout.has_minimums()) {
        StoreNumber(layout, coded.minimums[n * groups + g], index,
                    record + layout.minimums_offset());
      }
      if (!layout.has_zeros()) continue;
      const uint8_t zero = coded.zeros[n * groups + g];
      DCHECK_LE(zero, 15);
      zeros[g * kPackedTileOutputs + n % kPackedTileOutputs] |=
          std::byte(n < kPackedTileOutputs ? zero : zero << 4);
    }
  }
}

// One row of codes, spread over the chunks of its record.
void PackRow(const PackedLayout& layout, const uint8_t* codes,
             const uint8_t* zeros, int64_t n, std::byte* record) {
  const bool int4 = layout.format == WeightFormat::kInt4;
  std::byte* tile = record + layout.codes_offset() +
                    n / kPackedTileOutputs * kPackedLineBytes +
                    n % kPackedTileOutputs * 4;
  const int64_t per_chunk = layout.chunk_inputs();
  for (int64_t chunk = 0; chunk < layout.chunks(); ++chunk) {
    const int64_t first = chunk * per_chunk;
    const int64_t group =
        std::min(first / layout.group_size, layout.groups() - 1);
    const uint8_t padding = zeros != nullptr
                                ? zeros[group]
                                : static_cast<uint8_t>(layout.symmetric_zero());
    uint8_t padded[8];
    const int64_t count = std::min(per_chunk, layout.inputs - first);
    std::memcpy(padded, codes + first, static_cast<size_t>(count));
    std::fill(padded + count, padded + per_chunk, padding);
    uint8_t bytes[4];
    for (int i = 0; i < 4; ++i) {
      bytes[i] = int4 ? static_cast<uint8_t>(padded[i] | padded[4 + i] << 4)
                      : padded[i];
    }
    std::memcpy(tile + chunk * 2 * kPackedLineBytes, bytes, sizeof(bytes));
  }
}

}  // namespace

void PackCodes(const PackedLayout& layout, int64_t first_output, int64_t rows,
               const CodedRows& coded, std::byte* matrix) {
  CHECK(IsInteger(layout.format));
  CHECK_EQ(first_output % kRecordOutputs, 0);
  CHECK(rows % kRecordOutputs == 0 || first_output + rows == layout.outputs);
  CHECK_EQ(static_cast<int64_t>(coded.codes.size()), rows * layout.inputs);
  CHECK_EQ(static_cast<int64_t>(coded.scales.size()), rows * layout.groups());
  CHECK_EQ(static_cast<int64_t>(coded.zeros.size()),
           layout.has_zeros() ? rows * layout.groups() : 0);
  CHECK_EQ(static_cast<int64_t>(coded.minimums.size()),
           layout.has_minimums() ? rows * layout.groups() : 0);
  for (int64_t row = 0; row < rows; row += kRecordOutputs) {
    const int64_t count = std::min(kRecordOutputs, rows - row);
    std::byte* record =
        matrix + (first_output + row) / kRecordOutputs * layout.record_bytes();
    std::memset(record, 0, static_cast<size_t>(layout.record_bytes()));
    const size_t groups = static_cast<size_t>(layout.groups());
    CodedRows part = coded;
    part.scales.remove_prefix(row * groups);
    if (layout.has_zeros()) part.zeros.remove_prefix(row * groups);
    if (layout.has_minimums()) part.minimums.remove_prefix(row * groups);
    PackGroups(layout, count, part, record);
    for (int64_t n = 0; n < count; ++n) {
      PackRow(layout, coded.codes.data() + (row + n) * layout.inputs,
              layout.has_zeros() ? part.zeros.data() + n * groups : nullptr, n,
              record);
    }
  }
}

}  // namespace nibble
