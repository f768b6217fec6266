// The rounding of a task's queries to 16 bits. Included once per Highway
// target; int8_arithmetic.h has the formulas.

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_QUERIES_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_QUERIES_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_QUERIES_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_QUERIES_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_arithmetic.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/int8_tiles-inl.h"
#include "kernels/attention/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How many rows ahead of their rounding, which takes some 50 cycles each,
// queries are prefetched.
inline constexpr int64_t kAheadRows = 8;

// Words 0 1 2 3 of every four as 0 2 1 3, as WordsOf splits a line.
template <class V>
HWY_INLINE V SplitOrder(V words) {
  return hn::Per4LaneBlockShuffle<3, 1, 2, 0>(words);
}

// Writes the codes of one row as Int8Queries has them; returns the row's scale
// and sets its offset. x: [padded_dim], zeros from head_dim on.
template <bool kVnni>
HWY_INLINE float QuantizeQuery(const float* x, int64_t head_dim,
                               int64_t padded_dim, std::byte* codes,
                               int32_t* offset) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  // The bits of |x| order like its value, with NaNs above infinity.
  auto largest = hn::Zero(di);
  for (int64_t i = 0; i < padded_dim; i += N) {
    const auto bits = hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i)));
    largest = hn::Max(largest, bits);
  }
  const int32_t bits = hn::ReduceMax(di, largest);
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  *offset = 0;
  if (!(magnitude >= kMinQueryMagnitude) || std::isinf(magnitude)) {
    std::memset(codes, 0, static_cast<size_t>(2 * padded_dim));
    return magnitude < kMinQueryMagnitude
               ? 0.0f
               : std::numeric_limits<float>::quiet_NaN();
  }
  const float range = static_cast<float>(MaxQueryCode(head_dim));
  const auto factor = hn::Set(d, range / magnitude);
  auto sum = hn::Zero(di);
  for (int64_t i = 0; i < padded_dim; i += N) {
    const auto code = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    sum = hn::Add(sum, code);
    if constexpr (kVnni) {
      const hn::Rebind<int8_t, decltype(d)> d8;
      const hn::Rebind<uint8_t, decltype(d)> du8;
      const hn::RebindToUnsigned<decltype(d)> du;
      const auto high = hn::ShiftRight<8>(hn::Add(code, hn::Set(di, 128)));
      int8_t* const to = reinterpret_cast<int8_t*>(codes) + i;
      hn::StoreU(hn::DemoteTo(d8, high), d8, to);
      hn::StoreU(hn::BitCast(d8, hn::TruncateTo(du8, hn::BitCast(du, code))),
                 d8, to + padded_dim);
    } else {
      const hn::Rebind<int16_t, decltype(d)> d16;
      hn::StoreU(SplitOrder(hn::DemoteTo(d16, code)), d16,
                 reinterpret_cast<int16_t*>(codes) + i);
    }
  }
  *offset = -kInt8KeyOffset * hn::ReduceSum(di, sum);
  return magnitude / range;
}

// Queries of a prompt lie in L3 at best: a token's are far from the next's.
HWY_INLINE void PrefetchQuery(const AttentionTask& task, const Rows& rows,
                              int64_t token, int64_t head) {
  if (token * rows.group >= task.row_end) return;
  const float* query = task.sequence->q.row(token) +
                       (task.kv_head * rows.group + head) * rows.head_dim;
  for (int64_t i = 0; i < rows.head_dim; i += 16) {
    PrefetchLine(reinterpret_cast<const std::byte*>(query + i));
  }
}

// Where QuantizeQueries works: as in Int8Queries, and one padded query.
struct Int8QueryBuffers {
  std::byte* codes;  // [rows, 2 * padded dim]
  int32_t* offsets;  // [rows]
  float* scales;     // [rows]
  float* query;      // [padded dim]
};

template <bool kVnni>
HWY_INLINE Int8Queries QuantizeQueries(const AttentionTask& task,
                                       const Rows& rows,
                                       const Int8QueryBuffers& buffers) {
  const int64_t stride = 2 * rows.stride;
  const float unit = task.params->scale * kScoreUnit;
  std::fill_n(buffers.query, rows.stride, 0.0f);
  int64_t token = task.row_begin / rows.group;
  int64_t head = task.row_begin % rows.group;
  const int64_t ahead = (kAheadRows + rows.group - 1) / rows.group;
  for (int64_t r = 0; r < ahead * rows.group; ++r) {
    PrefetchQuery(task, rows, token + r / rows.group, r % rows.group);
  }
  for (int64_t r = 0; r < rows.count; ++r) {
    const float* query = task.sequence->q.row(token) +
                         (task.kv_head * rows.group + head) * rows.head_dim;
    PrefetchQuery(task, rows, token + ahead, head);
    if (rows.head_dim < rows.stride) {
      std::copy_n(query, rows.head_dim, buffers.query);
      query = buffers.query;
    }
    buffers.scales[r] =
        unit * QuantizeQuery<kVnni>(query, rows.head_dim, rows.stride,
                                    buffers.codes + r * stride,
                                    buffers.offsets + r);
    if (++head == rows.group) {
      head = 0;
      ++token;
    }
  }
  return {buffers.codes, buffers.offsets, buffers.scales, stride,
          (rows.head_dim + 3) / 4};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_QUERIES_INL_H_
