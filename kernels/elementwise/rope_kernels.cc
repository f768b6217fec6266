#include "kernels/elementwise/rope_kernels.h"

#include <cstddef>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/rope_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Calls body(i, load, store) for whole vectors of [0, n) and for the tail.
template <class Body>
HWY_INLINE void ForVectors(size_t n, Body body) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  size_t i = 0;
  for (; i + N <= n; i += N) {
    body([&](const float* p) { return hn::LoadU(d, p + i); },
         [&](auto v, float* p) { hn::StoreU(v, d, p + i); });
  }
  if (i < n) {
    body([&](const float* p) { return hn::LoadN(d, p + i, n - i); },
         [&](auto v, float* p) { hn::StoreN(v, d, p + i, n - i); });
  }
}

void RopeHalf(const float* cos, const float* sin, int64_t pairs, float* head) {
  float* second = head + pairs;
  ForVectors(static_cast<size_t>(pairs), [&](auto load, auto store) {
    const auto a = load(head), b = load(second);
    const auto c = load(cos), s = load(sin);
    store(hn::MulSub(a, c, hn::Mul(b, s)), head);
    store(hn::MulAdd(a, s, hn::Mul(b, c)), second);
  });
}

void RopeInterleaved(const float* cos, const float* sin, int64_t pairs,
                     float* head) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t n = static_cast<size_t>(pairs);
  size_t i = 0;
  for (; i + N <= n; i += N) {
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, head + 2 * i, a, b);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreInterleaved2(hn::MulSub(a, c, hn::Mul(b, s)),
                          hn::MulAdd(a, s, hn::Mul(b, c)), d, head + 2 * i);
  }
  if (i < n) {
    // The tail goes through a buffer of two whole vectors.
    HWY_ALIGN float pair[2 * hn::MaxLanes(d)] = {};
    for (size_t j = 0; j < 2 * (n - i); ++j) pair[j] = head[2 * i + j];
    hn::Vec<decltype(d)> a, b;
    hn::LoadInterleaved2(d, pair, a, b);
    const auto c = hn::LoadN(d, cos + i, n - i);
    const auto s = hn::LoadN(d, sin + i, n - i);
    hn::StoreInterleaved2(hn::MulSub(a, c, hn::Mul(b, s)),
                          hn::MulAdd(a, s, hn::Mul(b, c)), d, pair);
    for (size_t j = 0; j < 2 * (n - i); ++j) head[2 * i + j] = pair[j];
  }
}

}  // namespace

RopeKernels RopeRow(const char* name, Isa isa) {
  return {name, isa, &RopeHalf, &RopeInterleaved};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const RopeKernels> RopeKernelTable() {
  static const RopeKernels kTable[] = {
      {"scalar", Isa::kScalar, &reference::RopeHalf,
       &reference::RopeInterleaved},
      NIBBLE_SIMD_ROWS(RopeRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
