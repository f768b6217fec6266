#include "kernels/attention/attention_kernels.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "kernels/attention/int8_kernels.h"
#include "kernels/attention/partial_result.h"
#include "kernels/attention/reference.h"
#include "kernels/elementwise/simd_targets.h"
#include "tensor/bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"
#include "kernels/attention/direct-inl.h"
#include "kernels/attention/join-inl.h"
#include "kernels/attention/rows-inl.h"
#include "kernels/attention/tiles-inl.h"
#include "kernels/attention/unpack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// The scratch of a running task.
struct Scratch {
  Scratch(float* floats, int64_t head_dim)
      : q(floats),
        scores(q + kMaxRows * PaddedDim(head_dim)),
        keys(scores + kMaxRows * kKeyBlock),
        values(keys + kSubBlock * PaddedDim(head_dim)),
        copy(values + kSubBlock * PaddedDim(head_dim)),
        block(copy + kSubBlock * PaddedDim(head_dim)),
        total(block + PartialFloats(head_dim)) {}

  static int64_t Floats(int64_t head_dim) {
    return PaddedDim(head_dim) * (kMaxRows + 3 * kSubBlock) +
           kMaxRows * kKeyBlock + 2 * PartialFloats(head_dim);
  }

  float* q;       // [kMaxRows, PaddedDim], scaled
  float* scores;  // [kMaxRows, kKeyBlock], then the weights
  float* keys;    // [head_dim, kSubBlock]
  float* values;  // [kSubBlock, PaddedDim]
  float* copy;    // [kSubBlock, head_dim] of the cache's dtype
  float* block;   // Partial of one block
  float* total;   // Partial of all blocks so far
};

// One sub-block, and where the data to be read after it lies.
template <class T>
struct SubBlock {
  TokenRange<T> tokens;
  TokenRange<T> next;
  int64_t column;  // of tokens.begin in the rows of Scratch::scores

  KeyRange keys() const { return {tokens.begin, tokens.end}; }
};

// Scores of the keys of one sub-block.
template <class T>
void ScoreSubBlock(const Rows& rows, const SubBlock<T>& sub,
                   const Scratch& scratch) {
  const int64_t start = sub.tokens.begin / kSubBlock * kSubBlock;
  T* const copy = reinterpret_cast<T*>(scratch.copy);
  float* const scores = scratch.scores + start % kKeyBlock;
  if (rows.count <= kDirectRows) {
    ScoresFromCache(rows.count, sub.tokens, start, sub.next, copy, scratch.q,
                    rows.stride, scores);
    return;
  }
  UnpackKeys(sub.tokens, start, sub.next, copy, scratch.keys);
  for (int64_t r = 0; r < rows.count; r += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, rows.count - r);
    const KeyRange any =
        KeysOfGroup(rows, r, count, sub.tokens.begin, sub.tokens.end).any;
    if (any.begin >= any.end) continue;
    Scores(count, scratch.q + r * rows.stride, rows.stride, rows.head_dim,
           scratch.keys, scores + r * kKeyBlock);
  }
}

// mix += weights * values for the rows of one tile over the keys of a
// sub-block. Keys that all rows see go through the tile; at the edges of a mask
// each row takes its own, so that no row touches what it must not see. `column`
// is that of keys.begin, whose values come first in scratch.values.
void MixTile(const Rows& rows, int64_t first, int64_t count, KeyRange keys,
             int64_t column, const Scratch& scratch, float* mix) {
  const GroupKeys group = KeysOfGroup(rows, first, count, keys.begin, keys.end);
  const KeyRange all = group.all;
  const auto part = [&](int64_t r, int64_t n, int64_t begin, int64_t end) {
    const int64_t skipped = begin - keys.begin;
    MixValues(n, scratch.scores + r * kKeyBlock + column + skipped,
              scratch.values + skipped * rows.stride, end - begin, rows.stride,
              mix + r * rows.stride);
  };
  const bool shared = all.begin < all.end;
  if (shared && all.begin == group.any.begin && all.end == group.any.end) {
    return part(first, count, all.begin, all.end);
  }
  for (int64_t r = first; r < first + count; ++r) {
    const int64_t begin = std::max(rows.begin[r], keys.begin);
    const int64_t end = std::min(rows.end[r], keys.end);
    const int64_t stop = shared ? all.begin : end;
    if (begin < stop) part(r, 1, begin, stop);
  }
  if (!shared) return;
  part(first, count, all.begin, all.end);
  for (int64_t r = first; r < first + count; ++r) {
    const int64_t end = std::min(rows.end[r], keys.end);
    if (all.end < end) part(r, 1, all.end, end);
  }
}

template <class T>
void MixSubBlock(const Rows& rows, const SubBlock<T>& sub,
                 const Scratch& scratch, float* mix) {
  const T* tokens[kSubBlock];
  sub.tokens.Rows(tokens);
  const int64_t lanes =
      static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  if (rows.count <= kDirectRows && rows.head_dim % lanes == 0) {
    const GroupKeys group =
        KeysOfGroup(rows, 0, rows.count, sub.tokens.begin, sub.tokens.end);
    if (group.all.begin == sub.tokens.begin &&
        group.all.end == sub.tokens.end) {
      MixFromCache(rows.count, scratch.scores + sub.column, tokens,
                   sub.tokens.end - sub.tokens.begin, sub.next, rows.stride,
                   mix);
      return;
    }
  }
  UnpackValues(tokens, sub.tokens.end - sub.tokens.begin, rows.head_dim,
               rows.stride, sub.next, scratch.values);
  for (int64_t r = 0; r < rows.count; r += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, rows.count - r);
    MixTile(rows, r, count, sub.keys(), sub.column, scratch, mix);
  }
}

void WeighBlock(const AttentionTask& task, const Rows& rows, KeyRange keys,
                int64_t block_start, float* scores, const Partial& out) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t begin = std::max(rows.begin[r], keys.begin);
    const int64_t end = std::min(rows.end[r], keys.end);
    out.max[r] = -std::numeric_limits<float>::infinity();
    out.sum[r] = 0.0f;
    if (begin >= end) continue;
    const float* slopes = task.params->alibi_slopes;
    const float slope =
        slopes == nullptr ? 0.0f : slopes[HeadOf(task, rows, r)] * kScoreUnit;
    const int64_t position =
        task.sequence->first_position + (task.row_begin + r) / rows.group;
    WeighRow(scores + r * kKeyBlock, begin - block_start, end - block_start,
             slope, block_start - position, out.max + r, out.sum + r);
  }
}

// Calls body(SubBlock) for each part of tokens [begin, end) of `pages`, which
// lie in one key block. `after` are the tokens to be read after the last.
template <class T, class Body>
HWY_INLINE void ForSubBlocks(const TokenRange<T>& tokens,
                             const TokenRange<T>& after, Body body) {
  const auto cut = [](const TokenRange<T>& range, int64_t begin) {
    const int64_t end =
        std::min(range.end, begin / kSubBlock * kSubBlock + kSubBlock);
    return TokenRange<T>{range.pages, range.kv, range.kv_head, begin, end};
  };
  for (int64_t begin = tokens.begin; begin < tokens.end;) {
    const TokenRange<T> part = cut(tokens, begin);
    const bool last = part.end >= tokens.end;
    body(SubBlock<T>{part,
                     last ? cut(after, after.begin) : cut(tokens, part.end),
                     begin % kKeyBlock});
    begin = part.end;
  }
}

// The partial result of all rows over one key block.
template <class T>
void AttendBlock(const AttentionTask& task, const Rows& rows, int64_t block,
                 const Scratch& scratch, const Partial& out) {
  const KvView& kv = task.sequence->kv;
  const int64_t start = block * kKeyBlock;
  const KeyRange keys{std::max(rows.any.begin, start),
                      std::min(rows.any.end, start + kKeyBlock)};
  const TokenRange<T> k{kv.key_pages, kv, task.kv_head, keys.begin, keys.end};
  const TokenRange<T> v{kv.value_pages, kv, task.kv_head, keys.begin, keys.end};
  const TokenRange<T> next_k{kv.key_pages, kv, task.kv_head, start + kKeyBlock,
                             rows.any.end};
  ForSubBlocks(k, v, [&](const SubBlock<T>& sub) HWY_ATTR {
    ScoreSubBlock<T>(rows, sub, scratch);
  });
  WeighBlock(task, rows, keys, start, scratch.scores, out);
  std::fill_n(out.mix, rows.count * rows.stride, 0.0f);
  ForSubBlocks(v, next_k, [&](const SubBlock<T>& sub) HWY_ATTR {
    MixSubBlock<T>(rows, sub, scratch, out.mix);
  });
}

template <class T>
void AttendTyped(const AttentionTask& task, float* floats) {
  const Rows rows = RowsOf(task);
  const Scratch scratch(floats, rows.head_dim);
  ScaleQueries(task, rows, scratch.q);
  AttendBlocks(task, rows, scratch.block, scratch.total,
               [&](int64_t b, const Partial& out)
                   HWY_ATTR { AttendBlock<T>(task, rows, b, scratch, out); });
}

void Attend(const AttentionTask& task, float* scratch) {
  if (task.sequence->kv.dtype == DType::kF32) {
    AttendTyped<float>(task, scratch);
  } else {
    AttendTyped<BF16>(task, scratch);
  }
}

void Join(const AttentionTask& task, float* floats) {
  const Rows rows = RowsOf(task);
  const Partial total(Scratch(floats, rows.head_dim).total);
  ClearPartial(rows, total);
  float* partial = task.partials;
  for (int64_t b = task.block_begin; b < task.block_end; ++b) {
    JoinBlock(rows, Partial(partial), total);
    partial += PartialFloats(rows.head_dim);
  }
  WriteOutputs(task, rows, total);
}

}  // namespace

AttentionKernels AttentionRow(const char* name, Isa isa) {
  return {name, isa, &Scratch::Floats, &Attend, Int8AttentionRow(isa), &Join};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

// Floats gain nothing from the dot products of bytes: the VNNI rows differ from
// those before them in int8 alone.
absl::Span<const AttentionKernels> AttentionTable() {
  static const AttentionKernels kTable[] = {
    {"scalar", Isa::kScalar, &reference::AttendScratchFloats,
     &reference::Attend, Int8AttentionRow(Isa::kScalar), nullptr},
#if HWY_TARGETS & HWY_AVX2
    N_AVX2::AttentionRow("avx2", Isa::kAvx2),
    N_AVX2::AttentionRow("avx_vnni", Isa::kAvxVnni),
#endif
#if HWY_TARGETS & HWY_AVX3
    N_AVX3::AttentionRow("avx512", Isa::kAvx512),
    N_AVX3::AttentionRow("avx512_vnni", Isa::kAvx512Vnni),
#endif
  };
  return kTable;
}

}  // namespace nibble
#endif  // HWY_ONCE
