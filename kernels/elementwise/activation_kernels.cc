#include "kernels/elementwise/activation_kernels.h"

#include <cstddef>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/activation_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"
#include "kernels/elementwise/exp-inl.h"
#include "kernels/elementwise/normal_cdf-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

struct Silu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V one = hn::Set(d, 1.0f);
    return hn::Div(x, hn::Add(one, Exp(d, hn::Neg(x))));
  }
};

// x Phi(x).
struct Gelu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::Mul(x, NormalCdf(d, x));
  }
};

// x sigmoid(2 u), 2 u = sqrt(8 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V one = hn::Set(d, 1.0f);
    const V cubic = hn::Mul(hn::Mul(x, x), hn::Set(d, -0.0713548163f));
    const V minus_2u = hn::Mul(x, hn::Add(cubic, hn::Set(d, -1.5957691216f)));
    return hn::Div(x, hn::Add(one, Exp(d, minus_2u)));
  }
};

struct QuickGelu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V one = hn::Set(d, 1.0f);
    const V e = Exp(d, hn::Mul(x, hn::Set(d, -1.702f)));
    return hn::Div(x, hn::Add(one, e));
  }
};

template <class Function>
void Activate(float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    hn::StoreU(Function()(d, hn::LoadU(d, x + i)), d, x + i);
  }
  if (i < size) {
    const auto v = hn::LoadN(d, x + i, size - i);
    hn::StoreN(Function()(d, v), d, x + i, size - i);
  }
}

template <class Function>
void Gated(const float* gate, const float* up, int64_t n, float* out) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    const auto act = Function()(d, hn::LoadU(d, gate + i));
    hn::StoreU(hn::Mul(act, hn::LoadU(d, up + i)), d, out + i);
  }
  if (i < size) {
    const auto act = Function()(d, hn::LoadN(d, gate + i, size - i));
    hn::StoreN(hn::Mul(act, hn::LoadN(d, up + i, size - i)), d, out + i,
               size - i);
  }
}

}  // namespace

ActivationKernels ActivationRow(const char* name, Isa isa) {
  return {name,
          isa,
          {&Activate<Silu>, &Activate<Gelu>, &Activate<GeluTanh>,
           &Activate<QuickGelu>},
          {&Gated<Silu>, &Gated<Gelu>, &Gated<GeluTanh>, &Gated<QuickGelu>}};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const ActivationKernels> ActivationTable() {
  static const ActivationKernels kTable[] = {
      {"scalar",
       Isa::kScalar,
       {&reference::Activate<Activation::kSilu>,
        &reference::Activate<Activation::kGelu>,
        &reference::Activate<Activation::kGeluTanh>,
        &reference::Activate<Activation::kQuickGelu>},
       {&reference::GatedActivate<Activation::kSilu>,
        &reference::GatedActivate<Activation::kGelu>,
        &reference::GatedActivate<Activation::kGeluTanh>,
        &reference::GatedActivate<Activation::kQuickGelu>}},
      NIBBLE_SIMD_ROWS(ActivationRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
