#include "kernels/matmul/outliers.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/outliers.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kTileOutputs>;
using Words = hn::RebindToUnsigned<Floats>;

// Where the weights of one input lie in a record.
struct Column {
  Column(const PackedLayout& layout, int64_t input)
      : group(input / layout.group_size),
        line(layout.codes_offset() +
             input / layout.chunk_inputs() * 2 * kPackedLineBytes),
        // Byte i of a word holds inputs i and, in the high nibble, 4 + i.
        shift(static_cast<int>(input % 4 * 8 +
                               input % layout.chunk_inputs() / 4 * 4)),
        mask(layout.format == WeightFormat::kInt4 ? 0xF : 0xFF) {}

  int64_t group;
  int64_t line;  // offset of tile A's codes; tile B's follow
  int shift;
  uint32_t mask;
};

HWY_INLINE hn::Vec<Floats> LoadScales(const PackedLayout& layout,
                                      const std::byte* record, int64_t index) {
  const Floats d;
  if (layout.wide_scales) {
    return hn::LoadU(d, reinterpret_cast<const float*>(record) + index);
  }
  const hn::Rebind<hwy::float16_t, Floats> d16;
  return hn::PromoteTo(
      d,
      hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(record) + index));
}

HWY_INLINE hn::Vec<Floats> LoadZeros(const PackedLayout& layout,
                                     const std::byte* record,
                                     const Column& column, int64_t output) {
  const Floats d;
  if (!layout.has_zeros()) {
    return hn::Set(d, static_cast<float>(layout.symmetric_zero()));
  }
  const hn::Rebind<uint8_t, Floats> d8;
  const Words dw;
  const auto pair = hn::LoadU(
      d8, reinterpret_cast<const uint8_t*>(record) + layout.zeros_offset() +
              column.group * kTileOutputs + output % kTileOutputs);
  const auto words = hn::PromoteTo(dw, pair);
  const auto zeros = output < kTileOutputs ? hn::And(words, hn::Set(dw, 0xF))
                                           : hn::ShiftRight<4>(words);
  return hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<Floats>(), zeros));
}

// The weights of outputs [output, output + lanes) of a record.
HWY_INLINE hn::Vec<Floats> LoadWeights(const PackedLayout& layout,
                                       const std::byte* record,
                                       const Column& column, int64_t output) {
  const Floats d;
  const Words dw;
  const auto words = hn::LoadU(
      dw, reinterpret_cast<const uint32_t*>(record + column.line) + output);
  const auto codes = hn::And(hn::ShiftRightSame(words, column.shift),
                             hn::Set(dw, column.mask));
  const auto code =
      hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<Floats>(), codes));
  const auto scale =
      LoadScales(layout, record, column.group * kRecordOutputs + output);
  return hn::Mul(scale,
                 hn::Sub(code, LoadZeros(layout, record, column, output)));
}

// sums[0, 32) of one row += excess * the column of weights.
void AddColumn(const PackedLayout& layout, const std::byte* record,
               const Outlier& outlier, float* sums) {
  const Floats d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Column column(layout, outlier.input);
  for (int64_t n = 0; n < kRecordOutputs; n += lanes) {
    const auto weights = LoadWeights(layout, record, column, n);
#if HWY_NATIVE_FMA
    const auto sum = hn::LoadU(d, sums + n);
    hn::StoreU(hn::MulAdd(hn::Set(d, outlier.excess), weights, sum), d,
               sums + n);
#else
    HWY_ALIGN float values[kTileOutputs];
    hn::StoreU(weights, d, values);
    for (int64_t i = 0; i < lanes; ++i) {
      sums[n + i] = std::fma(outlier.excess, values[i], sums[n + i]);
    }
#endif
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(AddColumn);

void AddOutliers(const Product& product, int64_t first, int64_t end,
                 Totals totals) {
  const PackedLayout& layout = *product.layout;
  const int64_t groups = layout.groups();
  const auto add_column = HWY_DYNAMIC_POINTER(AddColumn);
  for (int64_t r = first; r < end; ++r) {
    const std::byte* record = product.weights + r * layout.record_bytes();
    float* sums = totals.data + (r - first) * kRecordOutputs;
    for (int64_t row = 0; row < product.panel.groups.rows; ++row) {
      const Outlier* outliers = product.panel.outliers + row * groups;
      for (int64_t i = 0; i < product.panel.outlier_counts[row]; ++i) {
        add_column(layout, record, outliers[i], sums + row * totals.stride);
      }
    }
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
