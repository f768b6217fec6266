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

// x Phi(x). With z = |x| / sqrt(2) and t = 1 / (1 + z / 2),
//   erfc(z) = exp(-z^2) t R(t),
// where R is the minimax polynomial of degree 8 for t in [0.16, 1], that is
// z <= 10.5, past which exp(-z^2) is zero (Remez; relative error 4.3e-8).
struct Gelu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V one = hn::Set(d, 1.0f);
    const V half = hn::Set(d, 0.5f);
    // Past 20 nothing changes any more, and the square must not overflow.
    const V size = hn::Min(hn::Abs(x), hn::Set(d, 20.0f));
    const V z = hn::Mul(size, hn::Set(d, 0.707106781f));
    const V t = hn::Div(one, hn::MulAdd(z, half, one));
    V r = hn::Set(d, -5.919339135e-02f);
    r = hn::MulAdd(r, t, hn::Set(d, 2.851831019e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, -4.884613454e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, 2.795130312e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, -2.762368880e-02f));
    r = hn::MulAdd(r, t, hn::Set(d, 2.031100094e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, 2.429966033e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, 2.823900580e-01f));
    r = hn::MulAdd(r, t, hn::Set(d, 2.820855677e-01f));
    // z^2 = x^2 / 2 as the sum of a float and its rounding error: for large z
    // the exponential would multiply the latter.
    const V half_size = hn::Mul(size, half);
    const V square = hn::Mul(half_size, size);
    const V error = hn::MulSub(half_size, size, square);
    const V power = ExpNonPositive(d, hn::Neg(square));
    const V tail = hn::Mul(hn::Mul(hn::NegMulAdd(error, power, power), t),
                           hn::Mul(r, half));
    const V phi =
        hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
    return hn::Mul(x, phi);
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
