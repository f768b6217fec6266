#include "kernels/matmul/outliers.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/outliers.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/matmul/fused-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kTileOutputs>;
using Words = hn::RebindToUnsigned<Floats>;

// What all records of a matrix have in common.
struct Record {
  explicit Record(const PackedLayout& layout)
      : chunk_shift(layout.format == WeightFormat::kInt4 ? 3 : 2),
        mask(layout.format == WeightFormat::kInt4 ? 0xF : 0xFF),
        wide_scales(layout.wide_scales),
        has_zeros(layout.has_zeros()),
        has_minimums(layout.has_minimums()),
        symmetric_zero(static_cast<float>(layout.symmetric_zero())),
        zeros(layout.zeros_offset()),
        minimums(layout.minimums_offset()),
        codes(layout.codes_offset()) {}

  int chunk_shift;  // log2 of the inputs of a chunk
  uint32_t mask;    // of a code
  bool wide_scales;
  bool has_zeros;
  bool has_minimums;
  float symmetric_zero;
  int64_t zeros, minimums, codes;  // offsets
};

// `numbers` are the scales or the minimums.
HWY_INLINE hn::Vec<Floats> LoadNumbers(const Record& shape,
                                       const std::byte* numbers,
                                       int64_t index) {
  const Floats d;
  if (shape.wide_scales) {
    return hn::LoadU(d, reinterpret_cast<const float*>(numbers) + index);
  }
  const hn::Rebind<hwy::float16_t, Floats> d16;
  return hn::PromoteTo(
      d,
      hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(numbers) + index));
}

HWY_INLINE hn::Vec<Floats> LoadZeros(const Record& shape,
                                     const std::byte* record, int64_t group,
                                     int64_t output) {
  const Floats d;
  if (!shape.has_zeros) return hn::Set(d, shape.symmetric_zero);
  const hn::Rebind<uint8_t, Floats> d8;
  const Words dw;
  const auto words = hn::PromoteTo(
      dw, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(record) + shape.zeros +
                            group * kTileOutputs + output % kTileOutputs));
  const auto zeros = output < kTileOutputs ? hn::And(words, hn::Set(dw, 0xF))
                                           : hn::ShiftRight<4>(words);
  return hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<Floats>(), zeros));
}

// The weights [32] of one input.
HWY_INLINE void LoadColumn(const Record& shape, const std::byte* record,
                           const Outlier& outlier, float* column) {
  const Floats d;
  const Words dw;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int32_t k = outlier.input;
  // Byte k % 4 of a word holds input k and, for INT4, k + 4 in its high nibble.
  const int shift =
      k % 4 * 8 + ((k & ((1 << shape.chunk_shift) - 1)) >= 4 ? 4 : 0);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(
      record + shape.codes + (k >> shape.chunk_shift) * 2 * kPackedLineBytes);
  for (int64_t n = 0; n < kRecordOutputs; n += lanes) {
    const auto codes =
        hn::And(hn::ShiftRightSame(hn::LoadU(dw, words + n), shift),
                hn::Set(dw, shape.mask));
    const auto code =
        hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<Floats>(), codes));
    const int64_t index = outlier.group * kRecordOutputs + n;
    const auto minimums =
        shape.has_minimums ? LoadNumbers(shape, record + shape.minimums, index)
                           : hn::Zero(d);
    hn::Store(
        FusedMulAdd(d, LoadNumbers(shape, record, index),
                    hn::Sub(code, LoadZeros(shape, record, outlier.group, n)),
                    minimums),
        d, column + n);
  }
}

// sums[0, 32) of one row += excess * the weights of one input.
HWY_INLINE void AddColumn(float excess, const float* column, float* sums) {
  const Floats d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t n = 0; n < kRecordOutputs; n += lanes) {
    hn::StoreU(FusedMulAdd(d, hn::Set(d, excess), hn::Load(d, column + n),
                           hn::LoadU(d, sums + n)),
               d, sums + n);
  }
}

// One record, whose sums for row r are at sums[r * stride].
HWY_INLINE void AddSorted(const Record& shape, const std::byte* record,
                          const Panel& panel, float* sums, int64_t stride) {
  HWY_ALIGN float column[kRecordOutputs];
  int32_t input = -1;
  for (int64_t i = 0; i < panel.sorted_outlier_count; ++i) {
    const auto& [outlier, row] = panel.sorted_outliers[i];
    if (outlier.input != input) LoadColumn(shape, record, outlier, column);
    input = outlier.input;
    AddColumn(outlier.excess, column, sums + row * stride);
  }
}

void AddAll(const Product& product, int64_t first, int64_t end, Totals totals) {
  const Record shape(*product.layout);
  const int64_t groups = product.layout->groups();
  const int64_t record_bytes = product.layout->record_bytes();
  const Panel& panel = product.panel;
  if (panel.sorted_outliers != nullptr) {
    for (int64_t r = first; r < end; ++r) {
      AddSorted(shape, product.weights + r * record_bytes, panel,
                totals.data + (r - first) * kRecordOutputs, totals.stride);
    }
    return;
  }
  for (int64_t row = 0; row < panel.groups.rows; ++row) {
    const Outlier* outliers = panel.outliers + row * groups;
    float* sums = totals.data + row * totals.stride;
    for (int64_t r = first; r < end; ++r, sums += kRecordOutputs) {
      for (int32_t i = 0; i < panel.outlier_counts[row]; ++i) {
        HWY_ALIGN float column[kRecordOutputs];
        LoadColumn(shape, product.weights + r * record_bytes, outliers[i],
                   column);
        AddColumn(outliers[i].excess, column, sums);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(AddAll);

namespace {

// Fewer rows have fewer outliers than the matrix has inputs to count them by.
constexpr int64_t kRowsToSort = 32;

int64_t CountBytes(const PackedLayout& layout) {
  return CeilDiv((layout.inputs + 1) * 4, kStepBytes) * kStepBytes;
}

}  // namespace

int64_t SortedOutlierBytes(const PackedLayout& layout, int64_t rows) {
  if (rows < kRowsToSort) return 0;
  const int64_t size = static_cast<int64_t>(sizeof(RowOutlier));
  return CountBytes(layout) +
         CeilDiv(rows * layout.groups() * size, kStepBytes) * kStepBytes;
}

void SortOutliers(const PackedLayout& layout, std::byte* memory, Panel& panel) {
  // Where the outliers of each input begin, after those of the ones before it.
  int32_t* const begin = reinterpret_cast<int32_t*>(memory);
  RowOutlier* const sorted =
      reinterpret_cast<RowOutlier*>(memory + CountBytes(layout));
  const auto for_each = [&](auto&& visit) {
    for (int64_t row = 0; row < panel.groups.rows; ++row) {
      const Outlier* outliers = panel.outliers + row * layout.groups();
      for (int32_t i = 0; i < panel.outlier_counts[row]; ++i) {
        visit(outliers[i], static_cast<int32_t>(row));
      }
    }
  };
  std::fill_n(begin, layout.inputs + 1, 0);
  for_each([&](const Outlier& o, int32_t) { ++begin[o.input + 1]; });
  std::partial_sum(begin, begin + layout.inputs + 1, begin);
  panel.sorted_outliers = sorted;
  panel.sorted_outlier_count = begin[layout.inputs];
  for_each([&](const Outlier& o, int32_t row) {
    sorted[begin[o.input]++] = {o, row};
  });
}

void AddOutliers(const Product& product, int64_t first, int64_t end,
                 Totals totals) {
  HWY_DYNAMIC_DISPATCH(AddAll)(product, first, end, totals);
}

}  // namespace nibble
#endif  // HWY_ONCE
