#include <cstddef>
#include <cstdint>

#include "quantization/gptq/panel_solver.h"
#include "tensor/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantization/gptq/panel_solver_hwy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// No vector is longer than a panel.
using F32 = hn::CappedTag<float, kPanelRows / 2>;
using I32 = hn::RebindToSigned<F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using V = hn::Vec<F32>;

void Round(const float* weights, const PanelGrid& grid, float diagonal,
           uint8_t* codes, float* errors, float* loss) {
  const F32 f32;
  const V divisor = hn::Set(f32, diagonal);
  for (int64_t r = 0; r < kPanelRows; r += hn::Lanes(f32)) {
    const V w = hn::Load(f32, weights + r);
    const V shift = hn::Load(f32, grid.shift + r);
    V steps =
        hn::Round(hn::Div(hn::Sub(w, shift), hn::Load(f32, grid.divisor + r)));
    steps = hn::Min(hn::Max(steps, hn::Load(f32, grid.low + r)),
                    hn::Load(f32, grid.high + r));
    const V code = hn::Add(steps, hn::Load(f32, grid.zero + r));
    hn::StoreU(hn::DemoteTo(U8(), hn::ConvertTo(I32(), code)), U8(), codes + r);
    const V rounded =
        hn::Add(hn::Mul(steps, hn::Load(f32, grid.scale + r)), shift);
    const V error = hn::Div(hn::Sub(w, rounded), divisor);
    hn::Store(error, f32, errors + r);
    hn::Store(hn::MulAdd(error, error, hn::Load(f32, loss + r)), f32, loss + r);
  }
}

void Descend(const float* slope, const PanelGrid& grid, float curvature,
             float* steps, float* moved) {
  const F32 f32;
  const V by = hn::Set(f32, curvature);
  for (int64_t r = 0; r < kPanelRows; r += hn::Lanes(f32)) {
    const V before = hn::Load(f32, steps + r);
    const V width = hn::Mul(by, hn::Load(f32, grid.divisor + r));
    const V by_slope = hn::Div(hn::Load(f32, slope + r), width);
    V after = hn::Round(hn::Add(before, by_slope));
    after = hn::Min(hn::Max(after, hn::Load(f32, grid.low + r)),
                    hn::Load(f32, grid.high + r));
    const auto unknown =
        hn::Or(hn::IsNaN(by_slope), hn::Eq(width, hn::Zero(f32)));
    after = hn::IfThenElse(unknown, before, after);
    hn::Store(after, f32, steps + r);
    hn::Store(hn::Mul(hn::Sub(after, before), hn::Load(f32, grid.scale + r)),
              f32, moved + r);
  }
}

// Columns [begin, begin + kCount) of one strip. factor: from row `first`,
// column `begin`.
template <int kCount>
HWY_INLINE void UpdateStrip(const PanelUpdate& update, const float* factor,
                            float* weights) {
  const F32 f32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f32));
  const int64_t count = update.last - update.first;
  for (int64_t r = 0; r < kPanelRows; r += 2 * lanes) {
    V sums[kCount][2];
    HWY_UNROLL(8)
    for (int k = 0; k < kCount; ++k) {
      sums[k][0] = hn::Load(f32, weights + k * kPanelRows + r);
      sums[k][1] = hn::Load(f32, weights + k * kPanelRows + r + lanes);
    }
    for (int64_t c = 0; c < count; ++c) {
      const float* u = factor + c * kStripColumns;
      const float* errors = update.errors + c * kPanelRows + r;
      const V error0 = hn::Load(f32, errors);
      const V error1 = hn::Load(f32, errors + lanes);
      HWY_UNROLL(8)
      for (int k = 0; k < kCount; ++k) {
        const V by = hn::Set(f32, u[k]);
        sums[k][0] = hn::NegMulAdd(by, error0, sums[k][0]);
        sums[k][1] = hn::NegMulAdd(by, error1, sums[k][1]);
      }
    }
    HWY_UNROLL(8)
    for (int k = 0; k < kCount; ++k) {
      hn::Store(sums[k][0], f32, weights + k * kPanelRows + r);
      hn::Store(sums[k][1], f32, weights + k * kPanelRows + r + lanes);
    }
  }
}

void Update(const PanelUpdate& update, int64_t begin, int64_t end,
            float* weights) {
  for (int64_t k = begin; k < end;) {
    const int64_t strip = k / kStripColumns, within = k % kStripColumns;
    const float* factor =
        update.factor->strip(strip) + update.first * kStripColumns + within;
    float* to = weights + k * kPanelRows;
    if (within == 0 && k + kStripColumns <= end) {
      UpdateStrip<kStripColumns>(update, factor, to);
      k += kStripColumns;
    } else {
      UpdateStrip<1>(update, factor, to);
      ++k;
    }
  }
}

}  // namespace

void RoundLoop(const float* weights, const PanelGrid& grid, float diagonal,
               uint8_t* codes, float* errors, float* loss) {
  Round(weights, grid, diagonal, codes, errors, loss);
}

void DescendLoop(const float* slope, const PanelGrid& grid, float curvature,
                 float* steps, float* moved) {
  Descend(slope, grid, curvature, steps, moved);
}

void UpdateLoop(const PanelUpdate& update, int64_t begin, int64_t end,
                float* weights) {
  Update(update, begin, end, weights);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(RoundLoop);
HWY_EXPORT(DescendLoop);
HWY_EXPORT(UpdateLoop);

StripMatrix::StripMatrix(int64_t columns, Shape shape)
    : columns_(columns), shape_(shape) {
  values_ = Array<float>(static_cast<size_t>(StripOffset(strips())),
                         AlignedBuffer::Fill::kZero);
}

void RoundColumn(const float* weights, const PanelGrid& grid, float diagonal,
                 uint8_t* codes, float* errors, float* loss) {
  HWY_DYNAMIC_DISPATCH(RoundLoop)
  (weights, grid, diagonal, codes, errors, loss);
}

void DescendColumn(const float* slope, const PanelGrid& grid, float curvature,
                   float* steps, float* moved) {
  HWY_DYNAMIC_DISPATCH(DescendLoop)(slope, grid, curvature, steps, moved);
}

void UpdateColumns(const PanelUpdate& update, int64_t begin, int64_t end,
                   float* weights) {
  HWY_DYNAMIC_DISPATCH(UpdateLoop)(update, begin, end, weights);
}

}  // namespace nibble
#endif  // HWY_ONCE
