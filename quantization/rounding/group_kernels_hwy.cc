#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_kernels.h"
#include "tensor/coded_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantization/rounding/group_kernels_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using V = hn::Vec<F32>;

// A division, not a product with 1 / scale, as in round_to_nearest.h.
HWY_INLINE V Steps(V weights, const StepGrid& grid) {
  const F32 f32;
  const V above = hn::Sub(weights, hn::Set(f32, grid.shift));
  const V steps = hn::Round(hn::Div(above, hn::Set(f32, grid.scale)));
  return hn::Min(hn::Max(steps, hn::Set(f32, grid.low)),
                 hn::Set(f32, grid.high));
}

void Encode(const float* weights, int64_t count, const StepGrid& grid,
            float first_code, uint8_t* codes) {
  const F32 f32;
  const U8 u8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f32));
  const V offset = hn::Set(f32, first_code - grid.low);
  const auto encode = [&](V values) {
    return hn::DemoteTo(
        u8, hn::ConvertTo(I32(), hn::Add(Steps(values, grid), offset)));
  };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(encode(hn::LoadU(f32, weights + i)), u8, codes + i);
  }
  if (i < count) {
    const size_t rest = static_cast<size_t>(count - i);
    hn::StoreN(encode(hn::LoadN(f32, weights + i, rest)), u8, codes + i, rest);
  }
}

// Sums with importance; `ones`, `steps` and `values` only where the grid has a
// shift to be refitted.
template <bool kShifts>
StepSums Sum(const float* weights, const float* importance, int64_t count,
             const StepGrid& grid) {
  const F32 f32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f32));
  V squares = hn::Zero(f32), products = squares, error = squares;
  V ones = squares, steps = squares, values = squares;
  const auto add = [&](V w, V i) HWY_ATTR {
    const V step = Steps(w, grid);
    const V decoded =
        hn::MulAdd(step, hn::Set(f32, grid.scale), hn::Set(f32, grid.shift));
    const V off = hn::Sub(w, decoded);
    const V weighted = hn::Mul(i, step);
    squares = hn::MulAdd(weighted, step, squares);
    products = hn::MulAdd(weighted, w, products);
    error = hn::MulAdd(hn::Mul(i, off), off, error);
    if constexpr (kShifts) {
      ones = hn::Add(ones, i);
      steps = hn::Add(steps, weighted);
      values = hn::MulAdd(i, w, values);
    }
  };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    add(hn::LoadU(f32, weights + i), hn::LoadU(f32, importance + i));
  }
  if (i < count) {
    // Lanes beyond the end have no importance.
    const size_t rest = static_cast<size_t>(count - i);
    add(hn::LoadN(f32, weights + i, rest),
        hn::LoadN(f32, importance + i, rest));
  }
  StepSums sums;
  sums.squares = hn::ReduceSum(f32, squares);
  sums.products = hn::ReduceSum(f32, products);
  sums.error = hn::ReduceSum(f32, error);
  if constexpr (kShifts) {
    sums.ones = hn::ReduceSum(f32, ones);
    sums.steps = hn::ReduceSum(f32, steps);
    sums.values = hn::ReduceSum(f32, values);
  }
  return sums;
}

}  // namespace

void EncodeLoop(const float* weights, int64_t count, const StepGrid& grid,
                float first_code, uint8_t* codes) {
  Encode(weights, count, grid, first_code, codes);
}

StepSums SumLoop(const float* weights, const float* importance, int64_t count,
                 const StepGrid& grid, bool shifts) {
  return shifts ? Sum<true>(weights, importance, count, grid)
                : Sum<false>(weights, importance, count, grid);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(EncodeLoop);
HWY_EXPORT(SumLoop);

StepGrid StepsOf(const GroupGrid& grid, const GridSpec& spec) {
  const bool minimums = spec.offset == CodeOffset::kMinimums;
  const float zero = minimums ? 0.0f : grid.offset;
  return {grid.scale, minimums ? grid.offset : 0.0f,
          static_cast<float>(spec.min_code()) - zero,
          static_cast<float>(spec.max_code()) - zero};
}

void EncodeGroup(absl::Span<const float> weights, const GroupGrid& grid,
                 const GridSpec& spec, absl::Span<uint8_t> codes) {
  DCHECK_EQ(weights.size(), codes.size());
  if (grid.scale == 0.0f) {
    const uint8_t code = EncodeWeight(0.0f, grid, spec);
    for (uint8_t& to : codes) to = code;
    return;
  }
  HWY_DYNAMIC_DISPATCH(EncodeLoop)
  (weights.data(), static_cast<int64_t>(weights.size()), StepsOf(grid, spec),
   static_cast<float>(spec.min_code()), codes.data());
}

StepSums SumSteps(absl::Span<const float> weights,
                  absl::Span<const float> importance, const StepGrid& grid,
                  bool shifts) {
  DCHECK_EQ(weights.size(), importance.size());
  return HWY_DYNAMIC_DISPATCH(SumLoop)(weights.data(), importance.data(),
                                       static_cast<int64_t>(weights.size()),
                                       grid, shifts);
}

}  // namespace nibble
#endif  // HWY_ONCE
