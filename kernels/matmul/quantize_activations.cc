#include "kernels/matmul/quantize_activations.h"

#include <algorithm>
#include <cmath>
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
  Outlier* outliers;  // [groups]
  int32_t* outlier_count;
};

// The two largest |x| of a group, one of them twice if it occurs twice.
struct Magnitudes {
  float largest;
  float second;
};

}  // namespace
}  // namespace nibble
#endif  // NIBBLE_KERNELS_MATMUL_QUANTIZED_ROW_

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Compared as integers, where NaN > infinity > finite.
HWY_INLINE Magnitudes LargestMagnitudes(const float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t lanes = hn::Lanes(d);
  // Of each lane.
  auto first = hn::Zero(di), second = hn::Zero(di);
  for (size_t i = 0; i < count; i += lanes) {
    const auto values = i + lanes <= count ? hn::LoadU(d, x + i)
                                           : hn::LoadN(d, x + i, count - i);
    const auto bits = hn::BitCast(di, hn::Abs(values));
    second = hn::Max(second, hn::Min(first, bits));
    first = hn::Max(first, bits);
  }
  const int32_t largest = hn::ReduceMax(di, first);
  const auto is_largest = hn::Eq(first, hn::Set(di, largest));
  int32_t next = largest;
  if (hn::CountTrue(di, is_largest) == 1) {
    next = hn::ReduceMax(di, hn::IfThenElse(is_largest, second, first));
    next = std::max(next, hn::ReduceMax(di, second));
  }
  Magnitudes result;
  std::memcpy(&result.largest, &largest, sizeof(largest));
  std::memcpy(&result.second, &next, sizeof(next));
  return result;
}

// Rounds to nearest within -127..127: an outlier lies beyond.
template <class V>
HWY_INLINE hn::Vec<hn::ScalableTag<int32_t>> ToCode(V steps) {
  const hn::ScalableTag<float> d;
  return hn::NearestInt(
      hn::Clamp(steps, hn::Set(d, -127.0f), hn::Set(d, 127.0f)));
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
    const auto v = ToCode(hn::Mul(hn::LoadU(d, x + i), factor));
    sum = hn::Add(sum, v);
    hn::StoreU(hn::DemoteTo(d8, v), d8, values + i);
  }
  if (i < count) {
    const auto v = ToCode(hn::Mul(hn::LoadN(d, x + i, count - i), factor));
    sum = hn::Add(sum, v);
    hn::StoreN(hn::DemoteTo(d8, v), d8, values + i, count - i);
  }
  return sum;
}

// Lists the value of magnitude `largest`, from `begin` on, which was cut to 127
// steps of `scale`.
HWY_NOINLINE void ListOutlier(const QuantizedRow& row, int64_t begin,
                              float largest, float scale) {
  int64_t k = begin;
  while (std::abs(row.x[k]) != largest) ++k;
  const float code = row.x[k] < 0.0f ? -127.0f : 127.0f;
  row.outliers[(*row.outlier_count)++] = {
      static_cast<int32_t>(k), static_cast<int32_t>(begin / row.group_size),
      std::fma(-scale, code, row.x[k])};
}

// Inputs [begin, end) of one row, a group. Returns its scale.
HWY_INLINE float QuantizeGroup(const QuantizedRow& row, int64_t begin,
                               int64_t end, int32_t* minus_sum) {
  constexpr float kSmallest = 0x1p-100f;
  const hn::ScalableTag<int32_t> di;
  const Magnitudes magnitudes =
      LargestMagnitudes(row.x + begin, static_cast<size_t>(end - begin));
  const bool finite = std::isfinite(magnitudes.largest);
  const bool zero = !finite || magnitudes.largest < kSmallest;
  const bool outlier = finite && magnitudes.second >= kSmallest &&
                       magnitudes.largest > kOutlierRatio * magnitudes.second;
  const float amax = outlier ? magnitudes.second : magnitudes.largest;
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
  if (zero) return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  const float scale = amax / 127.0f;
  if (outlier) ListOutlier(row, begin, magnitudes.largest, scale);
  return scale;
}

void QuantizeRow(const QuantizedRow& row) {
  *row.outlier_count = 0;
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
  return ValueBytes(rows, inputs) + 2 * RoundUpToLine(rows * groups * 4) +
         RoundUpToLine(rows * groups * static_cast<int64_t>(sizeof(Outlier))) +
         RoundUpToLine(rows * 4);
}

int64_t OrderedRowBytes(int64_t inputs, int threads) {
  return threads * RoundUpToLine(inputs * static_cast<int64_t>(sizeof(float)));
}

Panel QuantizeActivations(const OrderedRows& input, const RowGroups& groups,
                          int64_t group_size, std::byte* memory,
                          ThreadPool& pool) {
  const auto& x = input.x;
  const int64_t inputs = x.cols;
  const int64_t blocks = Int8BlocksFor(inputs);
  const int64_t k_groups = CeilDiv(inputs, group_size);
  int8_t* const values = reinterpret_cast<int8_t*>(memory);
  std::byte* const after_values = memory + ValueBytes(x.rows, inputs);
  float* const scales = reinterpret_cast<float*>(after_values);
  std::byte* const after_scales =
      after_values + RoundUpToLine(x.rows * k_groups * 4);
  int32_t* const minus_sums = reinterpret_cast<int32_t*>(after_scales);
  std::byte* const after_sums =
      after_scales + RoundUpToLine(x.rows * k_groups * 4);
  Outlier* const outliers = reinterpret_cast<Outlier*>(after_sums);
  int32_t* const outlier_counts = reinterpret_cast<int32_t*>(
      after_sums +
      RoundUpToLine(x.rows * k_groups * static_cast<int64_t>(sizeof(Outlier))));
  std::byte* const ordered =
      memory + QuantizedPanelBytes(x.rows, inputs, group_size);
  const auto quantize = [&](int64_t begin, int64_t end, int thread) {
    float* const buffer =
        reinterpret_cast<float*>(ordered + OrderedRowBytes(inputs, thread));
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = groups.Begin(group);
      const int64_t rows = groups.Size(group);
      for (int64_t r = 0; r < rows; ++r) {
        QuantizedRow row;
        row.x = input.Inputs(first + r, 0, inputs, buffer);
        row.inputs = inputs;
        row.group_size = group_size;
        row.values = values + (first * blocks + r) * kInt8BlockInputs;
        row.block_stride = rows * kInt8BlockInputs;
        row.scales = scales + first * k_groups + r;
        row.minus_sums = minus_sums + first * k_groups + r;
        row.scale_stride = rows;
        row.outliers = outliers + (first + r) * k_groups;
        row.outlier_count = outlier_counts + first + r;
        HWY_DYNAMIC_DISPATCH(QuantizeRow)(row);
      }
    }
  };
  if (x.rows * inputs < kParallelValues) {
    quantize(0, groups.count, 0);
  } else {
    pool.ParallelFor(groups.count, quantize);
  }
  return Panel{groups, memory, scales, minus_sums, outliers, outlier_counts};
}

}  // namespace nibble
#endif  // HWY_ONCE
