// The rows of a task: which keys they see, and their softmax within a block.
// Included once per Highway target.

#if defined(NIBBLE_KERNELS_ATTENTION_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_ROWS_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_ROWS_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/partial_result.h"
#include "kernels/elementwise/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Scores are kept in units of log 2, so that weights are powers of two.
inline constexpr float kScoreUnit = 1.44269504088896341f;

// What the functions below share about a task.
struct Rows {
  int64_t count;
  int64_t group;  // rows per query
  int64_t head_dim;
  int64_t stride;           // PaddedDim(head_dim)
  KeyRange any;             // keys that some row sees
  int64_t begin[kMaxRows];  // visible keys of each row
  int64_t end[kMaxRows];
};

HWY_INLINE Rows RowsOf(const AttentionTask& task) {
  Rows rows;
  rows.count = task.row_end - task.row_begin;
  rows.group = task.params->heads / task.sequence->kv.kv_heads;
  rows.head_dim = task.sequence->kv.head_dim;
  rows.stride = PaddedDim(rows.head_dim);
  for (int64_t r = 0; r < rows.count; ++r) {
    const KeyRange keys = VisibleKeys(*task.sequence, *task.params,
                                      (task.row_begin + r) / rows.group);
    rows.begin[r] = keys.begin;
    rows.end[r] = keys.end;
    if (r == 0) rows.any = keys;
    rows.any.begin = std::min(rows.any.begin, keys.begin);
    rows.any.end = std::max(rows.any.end, keys.end);
  }
  return rows;
}

HWY_INLINE int64_t HeadOf(const AttentionTask& task, const Rows& rows,
                          int64_t r) {
  return task.kv_head * rows.group + (task.row_begin + r) % rows.group;
}

HWY_INLINE void ScaleQueries(const AttentionTask& task, const Rows& rows,
                             float* q) {
  const float scale = task.params->scale * kScoreUnit;
  for (int64_t r = 0; r < rows.count; ++r) {
    const float* from =
        task.sequence->q.row((task.row_begin + r) / rows.group) +
        HeadOf(task, rows, r) * rows.head_dim;
    float* to = q + r * rows.stride;
    for (int64_t i = 0; i < rows.head_dim; ++i) to[i] = from[i] * scale;
  }
}

// Keys that rows [first, first + count) see within [low, high): those that any
// of them sees, and those that all of them see.
struct GroupKeys {
  KeyRange any;
  KeyRange all;
};

HWY_INLINE GroupKeys KeysOfGroup(const Rows& rows, int64_t first, int64_t count,
                                 int64_t low, int64_t high) {
  GroupKeys keys{{high, low}, {low, high}};
  for (int64_t r = first; r < first + count; ++r) {
    const int64_t begin = std::max(rows.begin[r], low);
    const int64_t end = std::min(rows.end[r], high);
    keys.all.begin = std::max(keys.all.begin, begin);
    keys.all.end = std::min(keys.all.end, end);
    if (begin >= end) continue;
    keys.any.begin = std::min(keys.any.begin, begin);
    keys.any.end = std::max(keys.any.end, end);
  }
  return keys;
}

// Turns the scores of one row, at columns [begin, end), into weights
// 2^(score - max), zero around them up to whole vectors. Writes max and sum.
// Bias, if any, is slope * (column + shift).
HWY_INLINE void WeighRow(float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                         float slope, int64_t shift, float* max_out,
                         float* sum_out) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first = begin / N * N;
  const V low = hn::Set(d, -std::numeric_limits<float>::infinity());
  // Masks out what lies before `begin` or from `end` on.
  const auto visible = [&](int64_t at, V v, V other) HWY_ATTR {
    if (at < begin) {
      v = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(begin - at)), other,
                         v);
    }
    if (end - at < N) {
      v = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(end - at)), v,
                         other);
    }
    return v;
  };
  V max = low;
  for (int64_t at = first; at < end; at += N) {
    V s = hn::Load(d, scores + at);
    if (slope != 0.0f) {
      const V distance = hn::Iota(d, static_cast<float>(at + shift));
      s = hn::MulAdd(hn::Set(d, slope), distance, s);
      hn::Store(s, d, scores + at);
    }
    max = hn::Max(max, visible(at, s, low));
  }
  const float row_max = hn::ReduceMax(d, max);
  const V top = hn::Set(d, row_max);
  V sum = hn::Zero(d);
  for (int64_t at = first; at < end; at += N) {
    const V s = hn::Load(d, scores + at);
    const V weight =
        visible(at, Exp2NonPositive(d, hn::Sub(s, top)), hn::Zero(d));
    hn::Store(weight, d, scores + at);
    sum = hn::Add(sum, weight);
  }
  *max_out = row_max;
  *sum_out = hn::ReduceSum(d, sum);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_ROWS_INL_H_
