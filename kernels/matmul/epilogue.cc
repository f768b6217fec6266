#include "kernels/matmul/epilogue.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/epilogue.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void Store(const float* sums, const float* bias, bool accumulate, int64_t count,
           float* y) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t size = static_cast<size_t>(count);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    auto sum = hn::LoadU(d, sums + i);
    if (bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, bias + i));
    if (accumulate) sum = hn::Add(sum, hn::LoadU(d, y + i));
    hn::StoreU(sum, d, y + i);
  }
  if (i == size) return;
  auto sum = hn::LoadN(d, sums + i, size - i);
  if (bias != nullptr) sum = hn::Add(sum, hn::LoadN(d, bias + i, size - i));
  if (accumulate) sum = hn::Add(sum, hn::LoadN(d, y + i, size - i));
  hn::StoreN(sum, d, y + i, size - i);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Store);

void StoreSums(const float* sums, const float* bias, bool accumulate,
               int64_t count, float* y) {
  HWY_DYNAMIC_DISPATCH(Store)(sums, bias, accumulate, count, y);
}

}  // namespace nibble
#endif  // HWY_ONCE
