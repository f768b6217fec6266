#include "kernels/elementwise/vector_kernels.h"

#include <cstddef>

#include "kernels/elementwise/reference.h"
#include "kernels/elementwise/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/vector_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// x[i] = map(x[i], i).
template <class Map>
HWY_INLINE void Update(int64_t n, float* x, Map map) {
  const hn::ScalableTag<float> d;
  const size_t N = hn::Lanes(d);
  const size_t size = static_cast<size_t>(n);
  size_t i = 0;
  for (; i + N <= size; i += N) {
    const auto load = [&](const float* p) { return hn::LoadU(d, p + i); };
    hn::StoreU(map(load), d, x + i);
  }
  if (i < size) {
    const auto load = [&](const float* p) {
      return hn::LoadN(d, p + i, size - i);
    };
    hn::StoreN(map(load), d, x + i, size - i);
  }
}

void Add(const float* y, int64_t n, float* x) {
  Update(n, x, [&](auto load) { return hn::Add(load(x), load(y)); });
}

void Multiply(const float* y, int64_t n, float* x) {
  Update(n, x, [&](auto load) { return hn::Mul(load(x), load(y)); });
}

void Scale(float factor, int64_t n, float* x) {
  const auto f = hn::Set(hn::ScalableTag<float>(), factor);
  Update(n, x, [&](auto load) { return hn::Mul(load(x), f); });
}

void AddScaled(float factor, const float* y, int64_t n, float* x) {
  const auto f = hn::Set(hn::ScalableTag<float>(), factor);
  Update(n, x, [&](auto load) { return hn::MulAdd(load(y), f, load(x)); });
}

}  // namespace

VectorKernels VectorRow(const char* name, Isa isa) {
  return {name, isa, &Add, &Multiply, &Scale, &AddScaled};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/elementwise/simd_rows.h"

namespace nibble {

absl::Span<const VectorKernels> VectorTable() {
  static const VectorKernels kTable[] = {
      {"scalar", Isa::kScalar, &reference::Add, &reference::Multiply,
       &reference::Scale, &reference::AddScaled},
      NIBBLE_SIMD_ROWS(VectorRow)};
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
