#include "kernels/matmul/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/bf16.h"

namespace nibble {
namespace {

// A step holds one 4-byte word per output: an f32, or a pair of bf16.
constexpr int64_t kWordBytes = kStepBytes / kTileOutputs;

// Bytes of one row in a packed dtype, before it is spread over a tile.
int64_t RowBytes(DType dtype, int64_t inputs) {
  return inputs * DTypeBlockBytes(dtype);
}

// Row `row` of `weights` in `dtype`: where it lies, or converted into `buffer`.
const std::byte* ReadRow(const TensorView& weights, int64_t row, DType dtype,
                         absl::Span<float> values, std::byte* buffer) {
  const int64_t inputs = weights.shape.dim(1);
  if (weights.dtype == dtype) {
    return weights.data + row * RowBytes(dtype, inputs);
  }
  if (dtype == DType::kF32) {
    const absl::Span<float> out(reinterpret_cast<float*>(buffer),
                                static_cast<size_t>(inputs));
    CHECK_OK(ConvertRowToF32(weights, row, out));
  } else {
    CHECK_OK(ConvertRowToF32(weights, row, values));
    F32ToBF16(values,
              absl::MakeSpan(reinterpret_cast<BF16*>(buffer), values.size()));
  }
  return buffer;
}

// Words [first, end) of 16 rows become the steps of a tile: a transposition, in
// squares so that both sides stay within a few cache lines.
void SpreadWords(const std::byte* const* rows, int64_t words, std::byte* tile) {
  for (int64_t first = 0; first < words; first += kTileOutputs) {
    const int64_t count = std::min(kTileOutputs, words - first);
    for (int64_t output = 0; output < kTileOutputs; ++output) {
      const std::byte* in = rows[output] + first * kWordBytes;
      std::byte* out = tile + first * kStepBytes + output * kWordBytes;
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(out + i * kStepBytes, in + i * kWordBytes, kWordBytes);
      }
    }
  }
}

// Working memory of one thread.
struct PackBuffers {
  PackBuffers(DType dtype, int64_t inputs)
      : values(inputs),
        rows(kTileOutputs * RowBytes(dtype, inputs)),
        zeros(RowBytes(dtype, inputs), AlignedBuffer::Fill::kZero) {}

  Array<float> values;  // [inputs]
  AlignedBuffer rows;   // [16][inputs] of dtype
  AlignedBuffer zeros;  // [inputs] of dtype
};

void PackTile(const TensorView& weights, DType dtype, int64_t tile,
              PackBuffers& buffers, std::byte* out) {
  const int64_t outputs = weights.shape.dim(0);
  const int64_t inputs = weights.shape.dim(1);
  const int64_t row_bytes = RowBytes(dtype, inputs);
  const std::byte* rows[kTileOutputs];
  for (int64_t i = 0; i < kTileOutputs; ++i) {
    const int64_t row = tile * kTileOutputs + i;
    rows[i] = row < outputs
                  ? ReadRow(weights, row, dtype, buffers.values.span(),
                            buffers.rows.data() + i * row_bytes)
                  : buffers.zeros.data();
  }
  const int64_t words = row_bytes / kWordBytes;
  SpreadWords(rows, words, out);
  if (words * kWordBytes == row_bytes) return;
  // The odd last k of bf16, beside a zero.
  for (int64_t i = 0; i < kTileOutputs; ++i) {
    std::byte* word = out + words * kStepBytes + i * kWordBytes;
    std::memset(word, 0, kWordBytes);
    std::memcpy(word, rows[i] + words * kWordBytes, sizeof(BF16));
  }
}

template <class T>
T Read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// A scale or minimum, the `index`th from `numbers` on.
float ReadNumber(const PackedLayout& layout, const std::byte* numbers,
                 int64_t index) {
  const std::byte* at = numbers + index * layout.scale_bytes();
  return layout.wide_scales ? Read<float>(at) : ToFloat(Read<F16>(at));
}

// Output n of one record of integers.
void DequantizeIntegers(const PackedLayout& layout, const std::byte* record,
                        int64_t n, absl::Span<float> values) {
  const bool int4 = layout.format == WeightFormat::kInt4;
  const int64_t in_tile = n % kPackedTileOutputs;
  const std::byte* codes = record + layout.codes_offset() +
                           n / kPackedTileOutputs * kPackedLineBytes +
                           in_tile * 4;
  for (int64_t first = 0; first < layout.inputs; first += layout.group_size) {
    const int64_t group = first / layout.group_size;
    const float scale = ReadNumber(layout, record, group * 32 + n);
    const float minimum =
        layout.has_minimums()
            ? ReadNumber(layout, record + layout.minimums_offset(),
                         group * 32 + n)
            : 0.0f;
    int zero = static_cast<int>(layout.symmetric_zero());
    if (layout.has_zeros()) {
      const int pair = static_cast<int>(
          record[layout.zeros_offset() + group * kPackedTileOutputs + in_tile]);
      zero = n < kPackedTileOutputs ? pair & 15 : pair >> 4;
    }
    const int64_t end = std::min(layout.inputs, first + layout.group_size);
    for (int64_t k = first; k < end; ++k) {
      const std::byte* line =
          codes + k / layout.chunk_inputs() * 2 * kPackedLineBytes;
      const int byte = static_cast<int>(line[k % 4]);
      const int code = !int4 ? byte : k % 8 < 4 ? byte & 15 : byte >> 4;
      const float steps = static_cast<float>(code - zero);
      values[k] = layout.has_minimums() ? std::fma(scale, steps, minimum)
                                        : scale * steps;
    }
  }
}

}  // namespace

PackedMatrix PackedMatrix::View(const PackedLayout& layout,
                                const std::byte* data) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(data) % AlignedBuffer::kAlignment, 0u);
  PackedMatrix matrix;
  matrix.layout_ = layout;
  matrix.data_ = data;
  return matrix;
}

PackedMatrix PackedMatrix::Own(const PackedLayout& layout,
                               AlignedBuffer memory) {
  CHECK_GE(static_cast<int64_t>(memory.size()), layout.bytes());
  PackedMatrix matrix = View(layout, memory.data());
  matrix.memory_ = std::move(memory);
  return matrix;
}

absl::StatusOr<PackedMatrix> PackMatrix(const TensorView& weights,
                                        WeightFormat format, ThreadPool& pool) {
  if (IsInteger(format)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "weights are packed as f32 or bf16, not ", WeightFormatName(format)));
  }
  if (weights.shape.rank() != 2 || weights.shape.elements() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("weights of shape ", weights.shape.ToString(),
                     " are not a matrix with at least one element"));
  }
  if (!CanConvertToF32(weights.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "weights of dtype ", DTypeName(weights.dtype), " cannot be packed"));
  }
  const absl::StatusOr<PackedLayout> layout =
      PackedLayout::Create(format, weights.shape.dim(0), weights.shape.dim(1));
  if (!layout.ok()) return layout.status();
  AlignedBuffer memory(static_cast<size_t>(layout->bytes()));
  const DType dtype = format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16;
  pool.ParallelFor(layout->records(),
                   [&](int64_t begin, int64_t end, int /*thread*/) {
                     PackBuffers buffers(dtype, layout->inputs);
                     for (int64_t tile = begin; tile < end; ++tile) {
                       PackTile(weights, dtype, tile, buffers,
                                memory.data() + tile * layout->record_bytes());
                     }
                   });
  return PackedMatrix::Own(*layout, std::move(memory));
}

void DequantizeRow(const PackedMatrix& w, int64_t output,
                   absl::Span<float> values) {
  const PackedLayout& layout = w.layout();
  CHECK(output >= 0 && output < layout.outputs);
  CHECK_EQ(static_cast<int64_t>(values.size()), layout.inputs);
  const int64_t in_record = output % layout.record_outputs();
  const std::byte* record =
      w.data() + output / layout.record_outputs() * layout.record_bytes();
  switch (layout.format) {
    case WeightFormat::kF32:
      for (int64_t k = 0; k < layout.inputs; ++k) {
        values[k] = Read<float>(record + k * kPackedLineBytes + in_record * 4);
      }
      return;
    case WeightFormat::kBF16:
      for (int64_t k = 0; k < layout.inputs; ++k) {
        values[k] = ToFloat(Read<BF16>(record + k / 2 * kPackedLineBytes +
                                       in_record * 4 + k % 2 * 2));
      }
      return;
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      DequantizeIntegers(layout, record, in_record, values);
      return;
  }
}

}  // namespace nibble
