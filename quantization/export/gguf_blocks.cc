#include "quantization/export/gguf_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/log/check.h"
#include "kernels/convert/convert.h"
#include "tensor/bf16.h"
#include "tensor/block_format.h"
#include "tensor/packed_layout.h"

namespace nibble {
namespace {

constexpr int kHalf = kBlockElements / 2;
constexpr float kCodes = 15.0f;  // the largest code of 4 bits

absl::Status TooLarge() {
  return absl::InvalidArgumentError(
      "holds a weight that is not a finite number or too large for GGUF's "
      "16-bit numbers");
}

// Nibbles pair element i with element i + 16.
void PackNibbles(const uint8_t* codes, uint8_t* qs) {
  for (int i = 0; i < kHalf; ++i) {
    qs[i] = static_cast<uint8_t>(codes[i] | codes[i + kHalf] << 4);
  }
}

template <class Block>
Block* BlocksIn(absl::Span<std::byte> out) {
  static_assert(alignof(Block) <= 2);
  return reinterpret_cast<Block*>(out.data());
}

// The codes and minimum of a block with the scale given; the loss.
RoundingLoss RoundWithMinimum(const float* weights, float scale, float minimum,
                              uint8_t* codes) {
  RoundingLoss loss;
  for (int i = 0; i < kBlockElements; ++i) {
    const float code =
        scale == 0.0f
            ? 0.0f
            : std::clamp(std::nearbyint((weights[i] - minimum) / scale), 0.0f,
                         kCodes);
    codes[i] = static_cast<uint8_t>(code);
    const double error = weights[i] - (scale * code + minimum);
    loss.error += error * error;
    loss.signal += static_cast<double>(weights[i]) * weights[i];
  }
  return loss;
}

absl::StatusOr<RoundingLoss> EncodeWithMinimums(absl::Span<const float> row,
                                                absl::Span<std::byte> out) {
  const size_t blocks = row.size() / kBlockElements;
  std::vector<uint8_t> codes(row.size());
  std::vector<float> scales(blocks), minimums(blocks);
  RoundingLoss sum;
  for (size_t b = 0; b < blocks; ++b) {
    const float* weights = row.data() + b * kBlockElements;
    const auto [low, high] =
        std::minmax_element(weights, weights + kBlockElements);
    minimums[b] = ToFloat(ToF16(*low));
    scales[b] = ToFloat(ToF16((*high - minimums[b]) / kCodes));
    if (!std::isfinite(minimums[b]) || !std::isfinite(scales[b])) {
      return TooLarge();
    }
    const RoundingLoss loss = RoundWithMinimum(
        weights, scales[b], minimums[b], codes.data() + b * kBlockElements);
    sum.error += loss.error;
    sum.signal += loss.signal;
  }
  EncodeGgufCodes(DType::kQ4_1, codes, scales, minimums, out);
  return sum;
}

absl::StatusOr<RoundingLoss> EncodeSymmetric(DType dtype,
                                             absl::Span<const float> row,
                                             absl::Span<std::byte> out) {
  PackedLayout layout;
  layout.format =
      dtype == DType::kQ4_0 ? WeightFormat::kInt4 : WeightFormat::kInt8;
  layout.outputs = 1;
  layout.inputs = static_cast<int64_t>(row.size());
  layout.group_size = kBlockElements;
  layout.symmetric = true;
  if (!SurveyRow(row, layout).in_range) return TooLarge();
  std::vector<uint8_t> codes(row.size());
  std::vector<float> scales(row.size() / kBlockElements);
  const RoundingLoss loss = RoundRow(
      row, layout, {absl::MakeSpan(codes), absl::MakeSpan(scales), {}});
  if (!AllFinite(scales)) return TooLarge();
  EncodeGgufCodes(dtype, codes, scales, {}, out);
  return loss;
}

template <class T, class Convert>
absl::StatusOr<RoundingLoss> EncodeFloats(absl::Span<const float> row,
                                          absl::Span<std::byte> out,
                                          const Convert& convert) {
  std::vector<T> narrow(row.size());
  convert(row, absl::MakeSpan(narrow));
  for (const T value : narrow) {
    if (!std::isfinite(ToFloat(value))) return TooLarge();
  }
  std::memcpy(out.data(), narrow.data(), out.size());
  return RoundingLoss{};
}

}  // namespace

int64_t GgufRowBytes(DType dtype, int64_t inputs) {
  CHECK_EQ(inputs % DTypeBlockElements(dtype), 0);
  return inputs / DTypeBlockElements(dtype) * DTypeBlockBytes(dtype);
}

absl::StatusOr<RoundingLoss> EncodeGgufRow(DType dtype,
                                           absl::Span<const float> row,
                                           absl::Span<std::byte> out) {
  DCHECK_EQ(static_cast<int64_t>(out.size()),
            GgufRowBytes(dtype, static_cast<int64_t>(row.size())));
  if (!AllFinite(row)) return TooLarge();
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ8_0:
      return EncodeSymmetric(dtype, row, out);
    case DType::kQ4_1:
      return EncodeWithMinimums(row, out);
    case DType::kF16:
      return EncodeFloats<F16>(row, out, F32ToF16);
    case DType::kBF16:
      return EncodeFloats<BF16>(row, out, F32ToBF16);
    default:
      CHECK(dtype == DType::kF32) << DTypeName(dtype);
      std::memcpy(out.data(), row.data(), out.size());
      return RoundingLoss{};
  }
}

void EncodeGgufCodes(DType dtype, absl::Span<const uint8_t> codes,
                     absl::Span<const float> scales,
                     absl::Span<const float> minimums,
                     absl::Span<std::byte> out) {
  const size_t blocks = codes.size() / kBlockElements;
  DCHECK_EQ(scales.size(), blocks);
  for (size_t b = 0; b < blocks; ++b) {
    const uint8_t* block = codes.data() + b * kBlockElements;
    if (dtype == DType::kQ4_0) {
      BlockQ4_0& to = BlocksIn<BlockQ4_0>(out)[b];
      to.d = ToF16(scales[b]);
      PackNibbles(block, to.qs);
    } else if (dtype == DType::kQ4_1) {
      BlockQ4_1& to = BlocksIn<BlockQ4_1>(out)[b];
      to.d = ToF16(scales[b]);
      to.m = ToF16(minimums[b]);
      PackNibbles(block, to.qs);
    } else {
      CHECK(dtype == DType::kQ8_0) << DTypeName(dtype);
      BlockQ8_0& to = BlocksIn<BlockQ8_0>(out)[b];
      to.d = ToF16(scales[b]);
      for (int i = 0; i < kBlockElements; ++i) {
        to.qs[i] = static_cast<int8_t>(block[i] - 128);
      }
    }
  }
}

}  // namespace nibble
