#include <cstdint>

#include "quantization/round_to_nearest_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantization/round_to_nearest_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using U8 = hn::Rebind<uint8_t, F32>;

// Finds the extremes on the bits, so that no NaN is lost on the way: of
// positive floats, a larger one has larger bits, and so it is with negative
// ones and their magnitudes; NaN and infinity come out on top.
HWY_INLINE void Extend(hn::Vec<F32> weights, hn::Vec<U32>& min,
                       hn::Vec<I32>& max) {
  const auto bits = hn::BitCast(I32(), weights);
  const auto negative = hn::And(bits, hn::BroadcastSignBit(bits));
  min = hn::Max(min, hn::BitCast(U32(), negative));
  max = hn::Max(max, bits);
}

GroupRange Range(const float* weights, int64_t count) {
  const F32 f32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f32));
  auto min = hn::Zero(U32());
  auto max = hn::Zero(I32());
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Extend(hn::LoadU(f32, weights + i), min, max);
  }
  if (i < count) {
    Extend(hn::LoadN(f32, weights + i, static_cast<size_t>(count - i)), min,
           max);
  }
  const uint32_t min_bits = hn::ReduceMax(U32(), min);
  const int32_t max_bits = hn::ReduceMax(I32(), max);
  GroupRange range;
  hwy::CopyBytes<sizeof(float)>(&min_bits, &range.min);
  hwy::CopyBytes<sizeof(float)>(&max_bits, &range.max);
  return range;
}

// The codes of a vector of weights. Zeros add nothing to the loss.
HWY_INLINE hn::Vec<U8> RoundVector(hn::Vec<F32> weights, const CodeGrid& grid,
                                   hn::Vec<F32>& error, hn::Vec<F32>& signal) {
  const F32 f32;
  const auto zero = hn::Set(f32, grid.zero);
  // A division, not a product with 1 / scale: the reciprocal of a denormal
  // scale is infinite, and ties would go wrong.
  const auto steps = hn::Div(weights, hn::Set(f32, grid.scale));
  const auto code = hn::Min(
      hn::Max(hn::Add(hn::Round(steps), zero), hn::Set(f32, grid.min_code)),
      hn::Set(f32, grid.max_code));
  const auto off = hn::Sub(steps, hn::Sub(code, zero));
  error = hn::MulAdd(off, off, error);
  signal = hn::MulAdd(steps, steps, signal);
  return hn::DemoteTo(U8(), hn::ConvertTo(I32(), code));
}

GroupLoss Round(const float* weights, int64_t count, const CodeGrid& grid,
                uint8_t* codes) {
  const F32 f32;
  const U8 u8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f32));
  auto error = hn::Zero(f32);
  auto signal = hn::Zero(f32);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(RoundVector(hn::LoadU(f32, weights + i), grid, error, signal),
               u8, codes + i);
  }
  if (i < count) {
    const size_t rest = static_cast<size_t>(count - i);
    const auto last = hn::LoadN(f32, weights + i, rest);
    hn::StoreN(RoundVector(last, grid, error, signal), u8, codes + i, rest);
  }
  return {hn::ReduceSum(f32, error), hn::ReduceSum(f32, signal)};
}

}  // namespace

const RoundingKernels* Kernels() {
  static constexpr RoundingKernels kKernels = {Range, Round};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(Kernels);

const RoundingKernels& ActiveRoundingKernels() {
  return *HWY_DYNAMIC_DISPATCH(Kernels)();
}

}  // namespace nibble
#endif  // HWY_ONCE
