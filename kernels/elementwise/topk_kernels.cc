#include "kernels/elementwise/topk_kernels.h"

#include <cstddef>
#include <limits>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/topk_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

float Max(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  const auto low = hn::Set(d, -std::numeric_limits<float>::infinity());
  // Greater-than is false for NaN. Four chains cover its latency.
  auto m0 = low, m1 = low, m2 = low, m3 = low;
  const auto keep = [&](auto v, auto m) {
    return hn::IfThenElse(hn::Gt(v, m), v, m);
  };
  size_t i = 0;
  for (; i + 4 * N <= size; i += 4 * N) {
    m0 = keep(hn::LoadU(d, x + i), m0);
    m1 = keep(hn::LoadU(d, x + i + N), m1);
    m2 = keep(hn::LoadU(d, x + i + 2 * N), m2);
    m3 = keep(hn::LoadU(d, x + i + 3 * N), m3);
  }
  for (; i + N <= size; i += N) m0 = keep(hn::LoadU(d, x + i), m0);
  if (i < size) m1 = keep(hn::LoadNOr(low, d, x + i, size - i), m1);
  return hn::ReduceMax(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3)));
}

// The first i in [begin, n) where matches(x[i]); n if none.
template <class Matches>
HWY_INLINE int64_t Find(const float* x, int64_t begin, int64_t n,
                        Matches matches) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = begin;
  for (; i + N <= n; i += N) {
    const intptr_t lane = hn::FindFirstTrue(d, matches(hn::LoadU(d, x + i)));
    if (lane >= 0) return i + lane;
  }
  if (i < n) {
    const size_t rest = static_cast<size_t>(n - i);
    const auto found = matches(hn::LoadN(d, x + i, rest));
    const intptr_t lane =
        hn::FindFirstTrue(d, hn::And(found, hn::FirstN(d, rest)));
    if (lane >= 0) return i + lane;
  }
  return n;
}

int64_t FindEqual(const float* x, int64_t begin, int64_t n, float value) {
  const auto v = hn::Set(hn::ScalableTag<float>(), value);
  return Find(x, begin, n, [&](auto lanes) { return hn::Eq(lanes, v); });
}

int64_t FindAbove(const float* x, int64_t begin, int64_t n, float value) {
  const auto v = hn::Set(hn::ScalableTag<float>(), value);
  return Find(x, begin, n, [&](auto lanes) { return hn::Gt(lanes, v); });
}

}  // namespace

SearchKernels SearchRow(const char* name, Isa isa) {
  return {name, isa, &Max, &FindEqual, &FindAbove};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const SearchKernels> SearchTable() {
  static const SearchKernels kTable[] = {
      {"scalar", Isa::kScalar, &reference::Max, &reference::FindEqual,
       &reference::FindAbove},
      NIBBLE_SIMD_ROWS(SearchRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
