#include "kernels/elementwise/softmax_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/softmax_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"
#include "kernels/elementwise/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Maximum of what is not NaN; -infinity if there is nothing.
float MaxOf(const float* x, size_t n) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  auto max = hn::Set(d, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  const auto keep = [&](auto v, auto m) {
    return hn::IfThenElse(hn::Gt(v, m), v, m);
  };
  for (; i + N <= n; i += N) max = keep(hn::LoadU(d, x + i), max);
  if (i < n) {
    const auto low = hn::Set(d, -std::numeric_limits<float>::infinity());
    max = keep(hn::LoadNOr(low, d, x + i, n - i), max);
  }
  return hn::ReduceMax(d, max);
}

void Softmax(float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  const auto max = hn::Set(d, MaxOf(x, size));
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    const auto e = ExpNonPositive(d, hn::Sub(hn::LoadU(d, x + i), max));
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  if (i < size) {
    const auto v = hn::LoadN(d, x + i, size - i);
    const auto e = ExpNonPositive(d, hn::Sub(v, max));
    hn::StoreN(e, d, x + i, size - i);
    sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, size - i), e));
  }
  const auto inverse = hn::Set(d, 1.0f / hn::ReduceSum(d, sum));
  for (i = 0; i + N <= size; i += N) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), inverse), d, x + i);
  }
  if (i < size) {
    const auto v = hn::LoadN(d, x + i, size - i);
    hn::StoreN(hn::Mul(v, inverse), d, x + i, size - i);
  }
}

double LogSumExp(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  const float max = MaxOf(x, size);
  if (std::isinf(max)) return reference::LogSumExp(x, n);
  // Sums of 64 vectors in f32 lose less than 64 * 2^-24 of themselves; from
  // there on the sum is in double.
  const size_t chunk = 64 * N;
  const auto max_vector = hn::Set(d, max);
  double total = 0.0;
  for (size_t begin = 0; begin < size; begin += chunk) {
    const size_t end = std::min(size, begin + chunk);
    auto sum = hn::Zero(d);
    size_t i = begin;
    for (; i + N <= end; i += N) {
      const auto v = hn::LoadU(d, x + i);
      sum = hn::Add(sum, ExpNonPositive(d, hn::Sub(v, max_vector)));
    }
    if (i < end) {
      const auto v = hn::LoadN(d, x + i, end - i);
      const auto e = ExpNonPositive(d, hn::Sub(v, max_vector));
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, end - i), e));
    }
    total += hn::ReduceSum(d, sum);
  }
  return max + std::log(total);
}

}  // namespace

SoftmaxKernels SoftmaxRow(const char* name, Isa isa) {
  return {name, isa, &Softmax, &LogSumExp};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const SoftmaxKernels> SoftmaxTable() {
  static const SoftmaxKernels kTable[] = {
      {"scalar", Isa::kScalar, &reference::Softmax, &reference::LogSumExp},
      NIBBLE_SIMD_ROWS(SoftmaxRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
