#include "kernels/matmul/outliers.h"

#include <cstddef>
#include <cstdint>

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

// sums[0, 32) of one row += excess * the weights of one input.
HWY_INLINE void AddColumn(const Record& shape, const std::byte* record,
                          const Outlier& outlier, float* sums) {
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
    const auto weights = FusedMulAdd(
        d, LoadNumbers(shape, record, index),
        hn::Sub(code, LoadZeros(shape, record, outlier.group, n)), minimums);
    const auto excess = hn::Set(d, outlier.excess);
    hn::StoreU(FusedMulAdd(d, excess, weights, hn::LoadU(d, sums + n)), d,
               sums + n);
  }
}

void AddAll(const Product& product, int64_t first, int64_t end, Totals totals) {
  const Record shape(*product.layout);
  const int64_t groups = product.layout->groups();
  const int64_t record_bytes = product.layout->record_bytes();
  const Panel& panel = product.panel;
  for (int64_t row = 0; row < panel.groups.rows; ++row) {
    const int32_t count = panel.outlier_counts[row];
    if (count == 0) continue;
    const Outlier* outliers = panel.outliers + row * groups;
    for (int64_t r = first; r < end; ++r) {
      float* sums =
          totals.data + row * totals.stride + (r - first) * kRecordOutputs;
      for (int32_t i = 0; i < count; ++i) {
        AddColumn(shape, product.weights + r * record_bytes, outliers[i], sums);
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

void AddOutliers(const Product& product, int64_t first, int64_t end,
                 Totals totals) {
  HWY_DYNAMIC_DISPATCH(AddAll)(product, first, end, totals);
}

}  // namespace nibble
#endif  // HWY_ONCE
