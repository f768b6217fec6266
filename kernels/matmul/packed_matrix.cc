#include "kernels/matmul/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/convert/convert.h"
#include "kernels/matmul/packed_layout.h"
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

}  // namespace

absl::StatusOr<PackedMatrix> PackMatrix(const TensorView& weights, DType dtype,
                                        ThreadPool& pool) {
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "weights are packed as f32 or bf16, not ", DTypeName(dtype)));
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
  PackedMatrix packed;
  packed.dtype_ = dtype;
  packed.outputs_ = weights.shape.dim(0);
  packed.inputs_ = weights.shape.dim(1);
  const int64_t tile_bytes = TileBytes(dtype, packed.inputs_);
  const int64_t tiles = TilesFor(packed.outputs_);
  packed.buffer_ = AlignedBuffer(tiles * tile_bytes);
  pool.ParallelFor(tiles, [&](int64_t begin, int64_t end, int /*thread*/) {
    PackBuffers buffers(dtype, packed.inputs_);
    for (int64_t tile = begin; tile < end; ++tile) {
      PackTile(weights, dtype, tile, buffers,
               packed.buffer_.data() + tile * tile_bytes);
    }
  });
  return packed;
}

}  // namespace nibble
