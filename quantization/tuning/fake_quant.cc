#include "quantization/tuning/fake_quant.h"

#include <cstddef>
#include <cstdint>

#include "quantization/rounding/grid.h"
#include "tensor/coded_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantization/tuning/fake_quant.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using I16 = hn::Rebind<int16_t, F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using Floats = hn::Vec<F32>;

// A group's grid in registers.
struct Grid {
  explicit Grid(const FakeQuantGrid& grid)
      : scale(hn::Set(F32(), grid.scale)),
        zero(hn::Set(F32(), grid.zero)),
        minimum(hn::Set(F32(), grid.minimum)),
        min_code(hn::Set(F32(), grid.min_code)),
        max_code(hn::Set(F32(), grid.max_code)) {}

  Floats scale, zero, minimum, min_code, max_code;
};

HWY_INLINE Floats ToSteps(hn::Vec<I16> shifts) {
  const I32 i32;
  return hn::Mul(hn::ConvertTo(F32(), hn::PromoteTo(i32, shifts)),
                 hn::Set(F32(), 1.0f / kShiftOne));
}

// Where a weight lies, in steps from the minimum. A division, not a product
// with 1 / scale: ties would go wrong.
HWY_INLINE Floats Position(Floats weights, const Grid& grid) {
  return hn::Div(hn::Sub(weights, grid.minimum), grid.scale);
}

HWY_INLINE Floats FreeCode(Floats position, Floats shifts, const Grid& grid) {
  return hn::Add(hn::Round(hn::Add(position, shifts)), grid.zero);
}

HWY_INLINE Floats Clamp(Floats code, const Grid& grid) {
  return hn::Min(hn::Max(code, grid.min_code), grid.max_code);
}

// Calls body(Load, i, lanes of this vector) for whole vectors, then once for
// the rest. `load` and `store` are LoadU and StoreU, or LoadN and StoreN.
template <class Body>
HWY_INLINE void ForEachVector(int64_t count, const Body& body) {
  const size_t lanes = hn::Lanes(F32());
  const size_t size = static_cast<size_t>(count);
  size_t i = 0;
  for (; i + lanes <= size; i += lanes) body(i, lanes);
  if (i < size) body(i, size - i);
}

template <class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const hn::TFromD<D>* from, size_t count) {
  return count == hn::Lanes(d) ? hn::LoadU(d, from) : hn::LoadN(d, from, count);
}

template <class D>
HWY_INLINE void StoreSome(hn::Vec<D> v, D d, hn::TFromD<D>* to, size_t count) {
  if (count == hn::Lanes(d)) {
    hn::StoreU(v, d, to);
  } else {
    hn::StoreN(v, d, to, count);
  }
}

HWY_INLINE Floats LoadShifts(const int16_t* shifts, size_t i, size_t count) {
  if (shifts == nullptr) return hn::Zero(F32());
  return ToSteps(LoadSome(I16(), shifts + i, count));
}

void Decode(const float* weights, const int16_t* shifts, int64_t count,
            const FakeQuantGrid& group, float* values) {
  const F32 f32;
  const Grid grid(group);
  const bool flat = group.scale == 0.0f;
  ForEachVector(count, [&](size_t i, size_t n) HWY_ATTR {
    auto value = grid.minimum;
    if (!flat) {
      const auto position = Position(LoadSome(f32, weights + i, n), grid);
      const auto code =
          Clamp(FreeCode(position, LoadShifts(shifts, i, n), grid), grid);
      value =
          hn::Add(hn::Mul(hn::Sub(code, grid.zero), grid.scale), grid.minimum);
    }
    StoreSome(value, f32, values + i, n);
  });
}

void Encode(const float* weights, const int16_t* shifts, int64_t count,
            const FakeQuantGrid& group, uint8_t* codes) {
  const F32 f32;
  const Grid grid(group);
  const bool flat = group.scale == 0.0f;
  ForEachVector(count, [&](size_t i, size_t n) HWY_ATTR {
    auto code = grid.zero;
    if (!flat) {
      const auto position = Position(LoadSome(f32, weights + i, n), grid);
      code = Clamp(FreeCode(position, LoadShifts(shifts, i, n), grid), grid);
    }
    StoreSome(hn::DemoteTo(U8(), hn::ConvertTo(I32(), code)), U8(), codes + i,
              n);
  });
}

FakeQuantSums Descend(const float* weights, const float* gradient,
                      int64_t count, const FakeQuantGrid& group, int step,
                      int16_t* shifts) {
  const F32 f32;
  const I32 i32;
  const Grid grid(group);
  // Nothing moves a group of zeros.
  if (group.scale == 0.0f) return {};
  const auto limit = hn::Set(i32, 2 * kShiftOne - 1);
  const auto towards = hn::Set(i32, group.scale > 0.0f ? step : -step);
  const auto zero = hn::Zero(f32);
  auto scale_sum = zero;
  auto clamped_sum = zero;
  ForEachVector(count, [&](size_t i, size_t n) HWY_ATTR {
    const auto w = LoadSome(f32, weights + i, n);
    // Lanes beyond the end have gradient 0 and add nothing.
    const auto g = LoadSome(f32, gradient + i, n);
    const auto shift = hn::PromoteTo(i32, LoadSome(I16(), shifts + i, n));
    const auto position = Position(w, grid);
    const auto free = FreeCode(
        position,
        hn::Mul(hn::ConvertTo(f32, shift), hn::Set(f32, 1.0f / kShiftOne)),
        grid);
    const auto code = Clamp(free, grid);
    const auto inside = hn::Eq(free, code);
    const auto slope =
        hn::Sub(hn::Sub(code, grid.zero), hn::IfThenElseZero(inside, position));
    scale_sum = hn::MulAdd(g, slope, scale_sum);
    clamped_sum = hn::Add(clamped_sum, hn::IfThenZeroElse(inside, g));
    // Comparisons, so that a NaN moves nothing.
    const auto up = hn::RebindMask(i32, hn::And(hn::Lt(g, zero), inside));
    const auto down = hn::RebindMask(i32, hn::And(hn::Gt(g, zero), inside));
    const auto moved = hn::Sub(hn::Add(shift, hn::IfThenElseZero(up, towards)),
                               hn::IfThenElseZero(down, towards));
    const auto kept = hn::Min(hn::Max(moved, hn::Neg(limit)), limit);
    StoreSome(hn::DemoteTo(I16(), kept), I16(), shifts + i, n);
  });
  return {hn::ReduceSum(f32, scale_sum), hn::ReduceSum(f32, clamped_sum)};
}

}  // namespace

const FakeQuantKernels* FakeQuantKernelTable() {
  static constexpr FakeQuantKernels kKernels = {Decode, Encode, Descend};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(FakeQuantKernelTable);

const FakeQuantKernels& ActiveFakeQuantKernels() {
  return *HWY_DYNAMIC_DISPATCH(FakeQuantKernelTable)();
}

FakeQuantGrid FakeQuantGridOf(const GroupGrid& grid, const GridSpec& spec) {
  FakeQuantGrid result;
  result.scale = grid.scale;
  result.min_code = static_cast<float>(spec.min_code());
  result.max_code = static_cast<float>(spec.max_code());
  if (spec.offset == CodeOffset::kMinimums) {
    result.minimum = grid.offset;
  } else {
    result.zero = grid.offset;
  }
  return result;
}

}  // namespace nibble
#endif  // HWY_ONCE
