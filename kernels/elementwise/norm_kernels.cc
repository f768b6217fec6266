#include "kernels/elementwise/norm_kernels.h"

#include <cmath>
#include <cstddef>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/norm_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// The sum over i < n of term(x[i..]), in four interleaved vectors of partial
// sums, enough to cover the latency of an addition. Lanes past the end are
// zeros to `term`'s caller: `term` gets the number of valid lanes.
template <class Term>
HWY_INLINE float SumOf(const float* HWY_RESTRICT x, size_t n, Term term) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  auto s0 = hn::Zero(d);
  auto s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    s0 = term(hn::LoadU(d, x + i), s0);
    s1 = term(hn::LoadU(d, x + i + N), s1);
    s2 = term(hn::LoadU(d, x + i + 2 * N), s2);
    s3 = term(hn::LoadU(d, x + i + 3 * N), s3);
  }
  for (; i + N <= n; i += N) s0 = term(hn::LoadU(d, x + i), s0);
  if (i < n) {
    const auto sum = term(hn::LoadN(d, x + i, n - i), s1);
    s1 = hn::IfThenElse(hn::FirstN(d, n - i), sum, s1);
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

// out[i] = map(x[i..], i) for whole vectors and a tail.
template <class Map>
HWY_INLINE void MapTo(const float* x, size_t n, float* out, Map map) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  size_t i = 0;
  for (; i + N <= n; i += N) {
    const auto load = [&](const float* p) { return hn::LoadU(d, p + i); };
    hn::StoreU(map(load(x), load), d, out + i);
  }
  if (i < n) {
    const auto load = [&](const float* p) {
      return hn::LoadN(d, p + i, n - i);
    };
    hn::StoreN(map(load(x), load), d, out + i, n - i);
  }
}

float InverseRoot(float sum, int64_t n, float eps) {
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

void RmsNorm(const float* x, const float* weight, int64_t n, float eps,
             float* out) {
  const hn::ScalableTag<float> d;
  const size_t size = static_cast<size_t>(n);
  const float squares =
      SumOf(x, size, [](auto v, auto sum) { return hn::MulAdd(v, v, sum); });
  const auto inverse = hn::Set(d, InverseRoot(squares, n, eps));
  MapTo(x, size, out, [&](auto v, auto load) {
    return hn::Mul(hn::Mul(v, inverse), load(weight));
  });
}

void LayerNorm(const float* x, const float* weight, const float* bias,
               int64_t n, float eps, float* out) {
  const hn::ScalableTag<float> d;
  const size_t size = static_cast<size_t>(n);
  const float sum =
      SumOf(x, size, [](auto v, auto s) { return hn::Add(v, s); });
  const auto mean = hn::Set(d, sum / static_cast<float>(n));
  const float squares = SumOf(x, size, [&](auto v, auto s) {
    const auto centred = hn::Sub(v, mean);
    return hn::MulAdd(centred, centred, s);
  });
  const auto inverse = hn::Set(d, InverseRoot(squares, n, eps));
  if (bias == nullptr) {
    MapTo(x, size, out, [&](auto v, auto load) {
      return hn::Mul(hn::Mul(hn::Sub(v, mean), inverse), load(weight));
    });
  } else {
    MapTo(x, size, out, [&](auto v, auto load) {
      const auto normal = hn::Mul(hn::Sub(v, mean), inverse);
      return hn::MulAdd(normal, load(weight), load(bias));
    });
  }
}

}  // namespace

NormKernels NormRow(const char* name, Isa isa) {
  return {name, isa, &RmsNorm, &LayerNorm};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const NormKernels> NormTable() {
  static const NormKernels kTable[] = {
      {"scalar", Isa::kScalar, &reference::RmsNorm, &reference::LayerNorm},
      NIBBLE_SIMD_ROWS(NormRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
