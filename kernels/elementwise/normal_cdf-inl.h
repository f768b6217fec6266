// The distribution function of the normal distribution, for kernel files
// compiled once per Highway target.

#if defined(NIBBLE_KERNELS_ELEMENTWISE_NORMAL_CDF_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ELEMENTWISE_NORMAL_CDF_INL_H_
#undef NIBBLE_KERNELS_ELEMENTWISE_NORMAL_CDF_INL_H_
#else
#define NIBBLE_KERNELS_ELEMENTWISE_NORMAL_CDF_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/elementwise/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Phi(x). With z = |x| / sqrt(2) and t = 1 / (1 + z / 2),
//   erfc(z) = exp(-z^2) t R(t),
// where R is the minimax polynomial of degree 8 for t in [0.16, 1], that is
// z <= 10.5, past which exp(-z^2) is zero (Remez; relative error 4.3e-8).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V NormalCdf(D d, V x) {
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
  const V tail =
      hn::Mul(hn::Mul(hn::NegMulAdd(error, power, power), t), hn::Mul(r, half));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ELEMENTWISE_NORMAL_CDF_INL_H_
