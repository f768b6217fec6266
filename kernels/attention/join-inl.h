// Partial results of attention: one per key block, joined in ascending order.
// Included once per Highway target.

#if defined(NIBBLE_KERNELS_ATTENTION_JOIN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_JOIN_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_JOIN_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_JOIN_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/partial_result.h"
#include "kernels/attention/rows-inl.h"
#include "kernels/elementwise/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A partial result (PartialFloats) taken apart.
struct Partial {
  explicit Partial(float* floats)
      : max(floats), sum(max + kMaxRows), mix(sum + kMaxRows) {}
  float* max;  // [kMaxRows]
  float* sum;  // [kMaxRows]
  float* mix;  // [kMaxRows, PaddedDim(head_dim)]
};

HWY_INLINE void ClearPartial(const Rows& rows, const Partial& total) {
  std::fill_n(total.max, kMaxRows, -std::numeric_limits<float>::infinity());
  std::fill_n(total.sum, kMaxRows, 0.0f);
  std::fill_n(total.mix, rows.count * rows.stride, 0.0f);
}

// total = total joined with the block after it. Not inlined: all callers must
// round alike.
HWY_NOINLINE inline void JoinBlock(const Rows& rows, const Partial& block,
                                   const Partial& total) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN float old_factor[hn::MaxLanes(d)];
  HWY_ALIGN float new_factor[hn::MaxLanes(d)];
  for (int64_t first = 0; first < rows.count; first += N) {
    const V old_max = hn::Load(d, total.max + first);
    const V new_max = hn::Load(d, block.max + first);
    const V new_sum = hn::Load(d, block.sum + first);
    const V old_sum = hn::Load(d, total.sum + first);
    const auto sees = hn::Not(hn::Eq(new_sum, hn::Zero(d)));  // NaN too
    const V max = hn::Max(old_max, new_max);
    const V a = Exp2NonPositive(d, hn::Sub(old_max, max));
    const V b = Exp2NonPositive(d, hn::Sub(new_max, max));
    const V sum = hn::MulAdd(old_sum, a, hn::Mul(new_sum, b));
    hn::Store(hn::IfThenElse(sees, max, old_max), d, total.max + first);
    hn::Store(hn::IfThenElse(sees, sum, old_sum), d, total.sum + first);
    hn::Store(a, d, old_factor);
    hn::Store(b, d, new_factor);
    for (int64_t r = first; r < std::min(rows.count, first + N); ++r) {
      if (block.sum[r] == 0.0f) continue;
      const V x = hn::Set(d, old_factor[r - first]);
      const V y = hn::Set(d, new_factor[r - first]);
      float* to = total.mix + r * rows.stride;
      const float* from = block.mix + r * rows.stride;
      for (int64_t i = 0; i < rows.stride; i += N) {
        const V scaled = hn::Mul(hn::Load(d, from + i), y);
        hn::Store(hn::MulAdd(hn::Load(d, to + i), x, scaled), d, to + i);
      }
    }
  }
}

// Rows of outputs that are fetched ahead of the one being written.
inline constexpr int64_t kOutputsAhead = 8;

HWY_INLINE void WriteOutputs(const AttentionTask& task, const Rows& rows,
                             const Partial& total) {
  const hn::ScalableTag<float> d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const auto output = [&](int64_t r) HWY_ATTR {
    return task.sequence->out.row((task.row_begin + r) / rows.group) +
           HeadOf(task, rows, r) * rows.head_dim;
  };
  // A prompt's outputs have left the near caches since they were last written.
  const auto fetch = [&](int64_t r) HWY_ATTR {
    if (r >= rows.count) return;
    float* const out = output(r);
    for (int64_t i = 0; i < rows.head_dim; i += 16) {
      __builtin_prefetch(out + i, /*write=*/1, /*locality=*/3);
    }
  };
  for (int64_t r = 0; r < kOutputsAhead; ++r) fetch(r);
  for (int64_t r = 0; r < rows.count; ++r) {
    fetch(r + kOutputsAhead);
    float* const out = output(r);
    const float* mix = total.mix + r * rows.stride;
    // A row that sees nothing has a sum of 0 and a mix of zeros.
    const float sum = total.sum[r];
    const auto divisor = hn::Set(d, sum == 0.0f ? 1.0f : sum);
    int64_t i = 0;
    for (; i + N <= rows.head_dim; i += N) {
      hn::StoreU(hn::Div(hn::Load(d, mix + i), divisor), d, out + i);
    }
    if (i < rows.head_dim) {
      hn::StoreN(hn::Div(hn::Load(d, mix + i), divisor), d, out + i,
                 static_cast<size_t>(rows.head_dim - i));
    }
  }
}

// Runs a task, whose blocks attend(block, Partial) computes one at a time.
// block, total: [PartialFloats(head_dim)].
template <class AttendBlock>
HWY_INLINE void AttendBlocks(const AttentionTask& task, const Rows& rows,
                             float* block, float* total,
                             const AttendBlock& attend) {
  if (task.partials != nullptr) {
    float* partial = task.partials;
    for (int64_t b = task.block_begin; b < task.block_end; ++b) {
      attend(b, Partial(partial));
      partial += PartialFloats(rows.head_dim);
    }
    return;
  }
  ClearPartial(rows, Partial(total));
  for (int64_t b = task.block_begin; b < task.block_end; ++b) {
    attend(b, Partial(block));
    JoinBlock(rows, Partial(block), Partial(total));
  }
  WriteOutputs(task, rows, Partial(total));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_JOIN_INL_H_
