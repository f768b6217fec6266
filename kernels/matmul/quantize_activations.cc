#include "kernels/matmul/quantize_activations.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/matmul/panel_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/quantize_activations.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

#ifndef NIBBLE_KERNELS_MATMUL_QUANTIZED_ROW_
#define NIBBLE_KERNELS_MATMUL_QUANTIZED_ROW_
namespace nibble {
namespace {

// One row of a panel: where it comes from and where it goes.
struct QuantizedRow {
  const float* x;  // [inputs]
  int64_t inputs;
  int64_t group_size;
  int8_t* values;  // blocks of 64, block_stride apart
  int64_t block_stride;
  float* scales;  // [groups], scale_stride apart, as minus_sums are
  int32_t* minus_sums;
  int64_t scale_stride;
};

}  // namespace
}  // namespace nibble
#endif  // NIBBLE_KERNELS_MATMUL_QUANTIZED_ROW_

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The bits of the largest |x|, as integers: NaN > infinity > finite.
HWY_INLINE int32_t MaxMagnitudeBits(const float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t lanes = hn::Lanes(d);
  auto max0 = hn::Zero(di), max1 = hn::Zero(di);
  size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    max0 = hn::Max(max0, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
    max1 = hn::Max(max1, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i + lanes))));
  }
  for (; i < count; i += lanes) {
    max0 =
        hn::Max(max0, hn::BitCast(di, hn::Abs(hn::LoadN(d, x + i, count - i))));
  }
  return hn::ReduceMax(di, hn::Max(max0, max1));
}

// values = round(x * inverse); returns the vector of their sums plus `sum`.
template <class V>
HWY_INLINE V RoundValues(const float* x, size_t count, float inverse, V sum,
                         int8_t* values) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const size_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, inverse);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    sum = hn::Add(sum, v);
    hn::StoreU(hn::DemoteTo(d8, v), d8, values + i);
  }
  if (i < count) {
    const auto v =
        hn::NearestInt(hn::Mul(hn::LoadN(d, x + i, count - i), factor));
    sum = hn::Add(sum, v);
    hn::StoreN(hn::DemoteTo(d8, v), d8, values + i, count - i);
  }
  return sum;
}

// Inputs [begin, end) of one row, a group. Returns its scale.
HWY_INLINE float QuantizeGroup(const QuantizedRow& row, int64_t begin,
                               int64_t end, int32_t* minus_sum) {
  constexpr float kSmallest = 0x1p-100f;
  constexpr int32_t kInfinityBits = 0x7F800000;
  const hn::ScalableTag<int32_t> di;
  const int32_t bits =
      MaxMagnitudeBits(row.x + begin, static_cast<size_t>(end - begin));
  float amax;
  std::memcpy(&amax, &bits, sizeof(amax));
  const bool zero = bits >= kInfinityBits || amax < kSmallest;
  const float inverse = 127.0f / amax;
  auto sum = hn::Zero(di);
  for (int64_t k = begin; k < end;) {  // piece by piece of the blocks
    const int64_t in_block = k % kInt8BlockInputs;
    const int64_t count = std::min(end - k, kInt8BlockInputs - in_block);
    int8_t* out =
        row.values + k / kInt8BlockInputs * row.block_stride + in_block;
    if (zero) {
      std::memset(out, 0, static_cast<size_t>(count));
    } else {
      sum =
          RoundValues(row.x + k, static_cast<size_t>(count), inverse, sum, out);
    }
    k += count;
  }
  *minus_sum = -hn::ReduceSum(di, sum);
  if (!zero) return amax / 127.0f;
  return bits >= kInfinityBits ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
}

void QuantizeRow(const QuantizedRow& row) {
  for (int64_t g = 0; g * row.group_size < row.inputs; ++g) {
    const int64_t begin = g * row.group_size;
    const int64_t end = std::min(row.inputs, begin + row.group_size);
    row.scales[g * row.scale_stride] =
        QuantizeGroup(row, begin, end, &row.minus_sums[g * row.scale_stride]);
  }
  const int64_t in_block = row.inputs % kInt8BlockInputs;
  if (in_block == 0) return;
  std::memset(
      row.values + row.inputs / kInt8BlockInputs * row.block_stride + in_block,
      0, static_cast<size_t>(kInt8BlockInputs - in_block));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
namespace {

HWY_EXPORT(QuantizeRow);

// Below this the work, about 0.3 ns a value, is cheaper than sharing it.
constexpr int64_t kParallelValues = 8192;

int64_t RoundUpToLine(int64_t bytes) {
  return CeilDiv(bytes, kStepBytes) * kStepBytes;
}

int64_t ValueBytes(int64_t rows, int64_t inputs) {
  return rows * Int8BlocksFor(inputs) * kInt8BlockInputs;
}

}  // namespace

int64_t QuantizedPanelBytes(int64_t rows, int64_t inputs, int64_t group_size) {
  const int64_t groups = CeilDiv(inputs, group_size);
  return ValueBytes(rows, inputs) + 2 * RoundUpToLine(rows * groups * 4);
}

Panel QuantizeActivations(const MatrixView<const float>& x,
                          const RowGroups& groups, int64_t group_size,
                          std::byte* memory, ThreadPool& pool) {
  const int64_t inputs = x.cols;
  const int64_t blocks = Int8BlocksFor(inputs);
  const int64_t k_groups = CeilDiv(inputs, group_size);
  int8_t* const values = reinterpret_cast<int8_t*>(memory);
  std::byte* const after_values = memory + ValueBytes(x.rows, inputs);
  float* const scales = reinterpret_cast<float*>(after_values);
  int32_t* const minus_sums = reinterpret_cast<int32_t*>(
      after_values + RoundUpToLine(x.rows * k_groups * 4));
  const auto quantize = [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = groups.Begin(group);
      const int64_t rows = groups.Size(group);
      for (int64_t r = 0; r < rows; ++r) {
        QuantizedRow row;
        row.x = x.row(first + r);
        row.inputs = inputs;
        row.group_size = group_size;
        row.values = values + (first * blocks + r) * kInt8BlockInputs;
        row.block_stride = rows * kInt8BlockInputs;
        row.scales = scales + first * k_groups + r;
        row.minus_sums = minus_sums + first * k_groups + r;
        row.scale_stride = rows;
        HWY_DYNAMIC_DISPATCH(QuantizeRow)(row);
      }
    }
  };
  if (x.rows * inputs < kParallelValues) {
    quantize(0, groups.count, 0);
  } else {
    pool.ParallelFor(groups.count, quantize);
  }
  return Panel{groups, memory, scales, minus_sums};
}

}  // namespace nibble
#endif  // HWY_ONCE
