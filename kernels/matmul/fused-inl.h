// Fused multiply-add on every Highway target, those without an instruction for
// it included, so that results have the same bits everywhere.
#if defined(NIBBLE_KERNELS_MATMUL_FUSED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_MATMUL_FUSED_INL_H_
#undef NIBBLE_KERNELS_MATMUL_FUSED_INL_H_
#else
#define NIBBLE_KERNELS_MATMUL_FUSED_INL_H_
#endif

#include <cmath>
#include <cstddef>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// a * b + sum, rounded once.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V FusedMulAdd(D d, V a, V b, V sum) {
#if HWY_NATIVE_FMA
  (void)d;
  return hn::MulAdd(a, b, sum);
#else
  HWY_ALIGN float x[hn::MaxLanes(d)];
  HWY_ALIGN float y[hn::MaxLanes(d)];
  HWY_ALIGN float z[hn::MaxLanes(d)];
  hn::Store(a, d, x);
  hn::Store(b, d, y);
  hn::Store(sum, d, z);
  for (size_t i = 0; i < hn::Lanes(d); ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return hn::Load(d, z);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_MATMUL_FUSED_INL_H_
