// Vector exponentials, for kernel files compiled once per Highway target.
//
// 2^x = 2^n * 2^f, n = round(x), f in [-1/2, 1/2]. 2^f is a polynomial of
// degree 6, the minimax of the relative error with p(0) = 1 (Remez; 3.9e-9,
// below half an ulp), so 2^0 is exactly 1. n comes from adding 1.5 * 2^23,
// where floats are spaced by 1; adding 127 as well leaves n + 127, an exponent
// field, in the low bits.
//
// | function         | domain   | max relative error | outside                |
// |------------------|----------|--------------------|------------------------|
// | Exp2NonPositive  | x <= 0   | 2 ulp              | 0 below x = -126       |
// | ExpNonPositive   | x <= 0   | 2 ulp              | 0 below x = -87.33     |
// | Exp              | all      | 2 ulp              | as above; inf > 88.37  |
//
// NaN gives NaN everywhere.

#if defined(NIBBLE_KERNELS_ELEMENTWISE_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ELEMENTWISE_EXP_INL_H_
#undef NIBBLE_KERNELS_ELEMENTWISE_EXP_INL_H_
#else
#define NIBBLE_KERNELS_ELEMENTWISE_EXP_INL_H_
#endif

#include <limits>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kRoundMagic = 12582912.0f + 127.0f;
inline constexpr float kMinExp2 = -126.0f;

// 2^(n + f) from t = x + kRoundMagic and f = x - n.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ScaledExp2(D d, V t, V f) {
  V p = hn::Set(d, 1.546973217e-04f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.341000083e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618030861e-03f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550297350e-02f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402265072e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931472421e-01f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const hn::RebindToUnsigned<D> du;
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, t)));
  return hn::Mul(p, power);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2NonPositive(D d, V x) {
  const V magic = hn::Set(d, kRoundMagic);
  const V t = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(t, magic));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kMinExp2)),
                            ScaledExp2(d, t, f));
}

// e^x with x log2(e) taken as the sum of a float product and its correction.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpNonPositive(D d, V x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLog2ELow = 1.92596299e-8f;  // log2(e) - kLog2E
  const V magic = hn::Set(d, kRoundMagic);
  const V log2e = hn::Set(d, kLog2E);
  const V t = hn::MulAdd(x, log2e, magic);
  const V n = hn::Sub(t, magic);
  const V f = hn::MulAdd(x, hn::Set(d, kLog2ELow), hn::MulSub(x, log2e, n));
  constexpr float kMin = -87.33654f;  // log(2^-126)
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kMin)), ScaledExp2(d, t, f));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
  constexpr float kMax = 88.37f;  // Above it n would round to 128.
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, kMax)), infinity,
                        ExpNonPositive(d, x));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ELEMENTWISE_EXP_INL_H_
