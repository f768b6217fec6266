// Where the integer sums of a product start, once per Highway target: at minus
// the zero point times the sum of the values, so that codes can be taken as
// they are, unsigned.
#if defined(NIBBLE_KERNELS_MATMUL_INT8_STARTS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_INT8_STARTS_INL_H_
#undef NIBBLE_KERNELS_MATMUL_INT8_STARTS_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_INT8_STARTS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul/kernel.h"
#include "kernels/matmul/panel_layout.h"
#include "tensor/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Where sums start, for all rows and groups.
struct Starts {
  const int32_t* values;
  bool zeros_differ;
};

HWY_INLINE int64_t StartBytes(const PackedLayout& layout, int64_t rows) {
  return CeilDiv(rows * layout.groups() * 4, kStepBytes) * kStepBytes;
}

// -zero * sums, in `memory` of StartBytes(); the panel's minus sums if the zero
// points differ.
HWY_INLINE Starts MakeStarts(const Product& p, int32_t zero, bool zeros_differ,
                             std::byte* memory) {
  if (zeros_differ) return {p.panel.minus_sums, true};
  int32_t* const values = reinterpret_cast<int32_t*>(memory);
  const int64_t count = p.panel.groups.rows * p.layout->groups();
  const hn::ScalableTag<int32_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < count; i += lanes) {  // both are whole lines
    hn::Store(hn::Mul(hn::Set(d, zero), hn::Load(d, p.panel.minus_sums + i)), d,
              values + i);
  }
  return {values, false};
}

template <class Dot>
HWY_INLINE int32_t ZeroOf(const PackedLayout& layout) {
  return Dot::kSignedCodes ? 0 : static_cast<int32_t>(layout.symmetric_zero());
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_INT8_STARTS_INL_H_
