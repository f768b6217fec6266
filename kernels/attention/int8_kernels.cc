#include "kernels/attention/int8_kernels.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "absl/log/check.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/kv_view.h"
#include "kernels/attention/partial_result.h"
#include "kernels/attention/reference.h"
#include "kernels/attention/reference_int8.h"
#include "kernels/elementwise/simd_targets.h"
#include "tensor/bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/int8_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once per target.
#include "hwy/highway.h"
#include "kernels/attention/int8_groups-inl.h"
#include "kernels/attention/int8_queries-inl.h"
#include "kernels/attention/int8_softmax-inl.h"
#include "kernels/attention/int8_tiles-inl.h"
#include "kernels/attention/join-inl.h"
#include "kernels/attention/rows-inl.h"

// Highway also compiles its baseline, which no row is for.
#if HWY_TARGET <= HWY_AVX2
HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kMaxTileRows = 6;

// How far ahead of a single tile of rows the stream is prefetched. Decode of
// 3,072 tokens in GB/s, with 2, 4, 8 and 16 KiB: 32/32/128 19, 22, 26, 25;
// 9/3/64 12, -, 22, -.
constexpr int64_t kAheadBytes = 8192;

// The scratch of a running task.
struct Int8Scratch {
  Int8Scratch(float* floats, int64_t head_dim)
      : codes(reinterpret_cast<std::byte*>(floats)),
        weights(codes + kMaxRows * 2 * PaddedDim(head_dim)),
        offsets(reinterpret_cast<int32_t*>(weights + kMaxRows * kWeightBytes)),
        query_scales(reinterpret_cast<float*>(offsets) + kMaxRows),
        mix_scales(query_scales + kMaxRows),
        query(mix_scales + kMaxRows),
        scores(query + PaddedDim(head_dim)),
        key_scales(scores + kMaxTileRows * kKeyBlock),
        value_scales(key_scales + kKeyBlock),
        value_factors(value_scales + kKeyBlock),
        block(value_factors + kKeyBlock),
        total(block + PartialFloats(head_dim)) {}

  static int64_t Floats(int64_t head_dim) {
    return kMaxRows * (PaddedDim(head_dim) + kWeightBytes / 2) / 2 +
           3 * kMaxRows + PaddedDim(head_dim) + (kMaxTileRows + 3) * kKeyBlock +
           2 * PartialFloats(head_dim);
  }

  std::byte* codes;      // [kMaxRows, 2 * PaddedDim], see Int8Queries
  std::byte* weights;    // [kMaxRows, kWeightBytes]
  int32_t* offsets;      // [kMaxRows]
  float* query_scales;   // [kMaxRows]
  float* mix_scales;     // [kMaxRows], S / 32767
  float* query;          // [PaddedDim]
  float* scores;         // [kMaxTileRows, kKeyBlock]
  float* key_scales;     // [kKeyBlock]
  float* value_scales;   // [kKeyBlock], zero for tokens that no row sees
  float* value_factors;  // [kKeyBlock]
  float* block;          // Partial of one block
  float* total;          // Partial of all blocks so far
};

struct GroupTables {
  GroupTable keys;
  GroupTable values;
};

// The key blocks of a task, one after the other.
template <bool kVnni>
class Int8Block {
 public:
  Int8Block(const AttentionTask& task, const Rows& rows,
            const Int8Queries& queries, const Int8Scratch& scratch)
      : task_(task),
        rows_(rows),
        queries_(queries),
        scratch_(scratch),
        tiles_((rows.count + kInt8Rows<kVnni> - 1) / kInt8Rows<kVnni>) {}

  // REQUIRES: ascending blocks, one after the other.
  void Attend(int64_t block, const Partial& out) {
    if (block == task_.block_begin) Prepare(block, 0);
    const GroupTables& now = tables_[current_];
    const GroupTables& next = tables_[1 - current_];
    start_ = block * kKeyBlock;
    const KeyRange tokens = TokensOf(block);
    const KeyRange columns{tokens.begin - start_, tokens.end - start_};
    LoadScales</*kClean=*/false>(now.keys, columns, scratch_.key_scales);
    spoiled_ =
        LoadScales</*kClean=*/true>(now.values, columns, scratch_.value_scales);
    factors_of_ = {0, 0};
    SetWalk(now.keys, &now.values);
    for (int64_t t = 0; t < tiles_; ++t) WeighTile(t, out);
    const bool last = block + 1 == task_.block_end;
    if (!last) Prepare(block + 1, 1 - current_);
    SetWalk(now.values, last ? nullptr : &next.keys);
    for (int64_t t = 0; t < tiles_; ++t) MixTile(t, out);
    current_ = 1 - current_;
  }

 private:
  KeyRange TokensOf(int64_t block) const {
    const int64_t start = block * kKeyBlock;
    return {std::max(rows_.any.begin, start),
            std::min(rows_.any.end, start + kKeyBlock)};
  }
  int64_t TileBegin(int64_t t) const { return rows_.count * t / tiles_; }

  // Columns of the block that some row of a tile sees, and those all see.
  GroupKeys TileColumns(int64_t t) const {
    const int64_t first = TileBegin(t);
    const GroupKeys keys = KeysOfGroup(rows_, first, TileBegin(t + 1) - first,
                                       start_, start_ + kKeyBlock);
    return {{keys.any.begin - start_, keys.any.end - start_},
            {keys.all.begin - start_, keys.all.end - start_}};
  }
  // Finds a block's groups in the pages, and starts to load their scales.
  void Prepare(int64_t block, int slot) {
    const KvView& kv = task_.sequence->kv;
    GroupTables& to = tables_[slot];
    FillGroups(kv, kv.key_pages, task_.kv_head, TokensOf(block), to.keys);
    FillGroups(kv, kv.value_pages, task_.kv_head, TokensOf(block), to.values);
    for (const GroupTable* table : {&to.keys, &to.values}) {
      for (int64_t g = table->range.begin; g < table->range.end; ++g) {
        PrefetchLine(table->scales[g]);
      }
    }
  }

  // The walk over `table`, and what is prefetched meanwhile. A single tile of
  // rows reads every line once: the stream some groups ahead. More tiles have
  // time to read all of `after`, which is multiplied next, each a share.
  void SetWalk(const GroupTable& table, const GroupTable* after) {
    walk_.groups = table.groups;
    walk_.ahead = ahead_;
    walk_.fetch_step = tiles_ > 1 && after == nullptr ? 0 : tiles_;
    const KeyRange next = after == nullptr ? table.range : after->range;
    const int64_t ahead = std::clamp<int64_t>(
        kAheadBytes / (kInt8Group * rows_.stride), 1, kBlockGroups);
    for (int64_t g = 0; g < kBlockGroups; ++g) {
      int64_t at = tiles_ > 1 ? g : g + ahead;
      if (tiles_ == 1 && at < table.range.end) {
        ahead_[g] = table.groups[at];
        continue;
      }
      if (tiles_ == 1) at += next.begin - table.range.end;
      ahead_[g] = (after == nullptr ? table : *after)
                      .groups[std::min(at, kBlockGroups - 1)];
    }
  }

  // The walk over the groups of `columns` with tile t's share of prefetches.
  const GroupWalk& WalkOf(int64_t t, KeyRange columns) {
    walk_.range = {columns.begin / kInt8Group,
                   (columns.end + kInt8Group - 1) / kInt8Group};
    walk_.fetch_first = t;
    return walk_;
  }

  // Scores and weights of a tile's rows.
  void WeighTile(int64_t t, const Partial& out) {
    const int64_t first = TileBegin(t);
    const int64_t count = TileBegin(t + 1) - first;
    const GroupKeys keys = TileColumns(t);
    const KeyRange columns = keys.any;
    if (columns.begin < columns.end) {
      Int8Scores<kVnni>(count, queries_.From(first), WalkOf(t, columns),
                        scratch_.key_scales, scratch_.scores);
      if (columns.begin == keys.all.begin && columns.end == keys.all.end &&
          task_.params->alibi_slopes == nullptr) {
        return WeighAlike(first, count, {columns.begin, columns.end, 0.0f, 0},
                          out);
      }
    }
    // All maxima, then all weights: rows wait for their maximum only once.
    Int8Row rows[kMaxTileRows];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t r = first + i;
      rows[i] = RowOf(r);
      out.max[r] = rows[i].begin < rows[i].end
                       ? FinishScores(rows[i], scratch_.scores + i * kKeyBlock)
                       : -std::numeric_limits<float>::infinity();
    }
    for (int64_t i = 0; i < count; ++i) {
      WeighRow(first + i, columns, rows[i], scratch_.scores + i * kKeyBlock,
               out);
    }
  }

  // Weights of `count` rows from their scores, if all see the same columns.
  void WeighAlike(int64_t first, int64_t count, const Int8Row& row,
                  const Partial& out) {
    SetFactors({row.begin, row.end});
    const bool spoiled = spoiled_ && SeesNan({row.begin, row.end});
    float* const max = out.max + first;
    float* const sum = out.sum + first;
    float* const scores = scratch_.scores;
    std::byte* const weights = scratch_.weights + first * kWeightBytes;
    for (int64_t i = 0; i < count; ++i) {
      max[i] = FinishScores(row, scores + i * kKeyBlock);
    }
    for (int64_t i = 0; i < count; ++i) {
      sum[i] = WeighInt8Row<kVnni>(row, scores + i * kKeyBlock, max[i],
                                   scratch_.value_factors,
                                   weights + i * kWeightBytes);
      if (spoiled) sum[i] = std::numeric_limits<float>::quiet_NaN();
      scratch_.mix_scales[first + i] = mix_scale_;
    }
  }

  // What row r sees of the block; may be nothing.
  Int8Row RowOf(int64_t r) const {
    Int8Row row;
    row.begin = std::max(rows_.begin[r] - start_, int64_t{0});
    row.end = std::min(rows_.end[r] - start_, kKeyBlock);
    row.slope = 0.0f;
    row.shift = 0;
    const float* slopes = task_.params->alibi_slopes;
    if (slopes != nullptr) {
      row.slope = slopes[HeadOf(task_, rows_, r)] * kScoreUnit;
      row.shift = start_ - task_.sequence->first_position -
                  (task_.row_begin + r) / rows_.group;
    }
    return row;
  }

  void WeighRow(int64_t r, KeyRange tile, const Int8Row& row,
                const float* scores, const Partial& out) {
    std::byte* const weights = scratch_.weights + r * kWeightBytes;
    if (row.begin >= row.end) {
      out.sum[r] = 0.0f;
      scratch_.mix_scales[r] = 0.0f;
      ClearWeights<kVnni>(UnitBegin(tile.begin), tile.end, weights);
      return;
    }
    ClearWeights<kVnni>(UnitBegin(tile.begin), UnitBegin(row.begin), weights);
    ClearWeights<kVnni>(UnitEnd(row.end), tile.end, weights);
    const KeyRange visible{row.begin, row.end};
    SetFactors(visible);
    out.sum[r] = WeighInt8Row<kVnni>(row, scores, out.max[r],
                                     scratch_.value_factors, weights);
    scratch_.mix_scales[r] = mix_scale_;
    if (spoiled_ && SeesNan(visible)) {
      out.sum[r] = std::numeric_limits<float>::quiet_NaN();
    }
  }

  // value_factors and mix_scale_ for rows that see these columns.
  void SetFactors(KeyRange columns) {
    if (columns.begin == factors_of_.begin && columns.end == factors_of_.end) {
      return;
    }
    factors_of_ = columns;
    mix_scale_ =
        ScaleFactors(columns, scratch_.value_scales, scratch_.value_factors) *
        (1.0f / kMaxWeight);
  }

  // True if the value of a token in these columns has a NaN for its scale.
  bool SeesNan(KeyRange columns) const {
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      BF16 scale;
      std::memcpy(&scale,
                  tables_[current_].values.scales[c / kInt8Group] +
                      c % kInt8Group * static_cast<int64_t>(sizeof(scale)),
                  sizeof(scale));
      if ((scale.bits & 0x7FFF) > 0x7F80) return true;
    }
    return false;
  }

  void MixTile(int64_t t, const Partial& out) {
    const KeyRange columns = TileColumns(t).any;
    if (columns.begin >= columns.end) return;
    const int64_t first = TileBegin(t);
    Int8Mix<kVnni>(
        TileBegin(t + 1) - first,
        {scratch_.weights + first * kWeightBytes, scratch_.mix_scales + first},
        WalkOf(t, columns), rows_.stride, out.mix + first * rows_.stride);
  }

  const AttentionTask& task_;
  const Rows& rows_;
  const Int8Queries& queries_;
  const Int8Scratch& scratch_;
  int64_t tiles_;  // of rows

  int64_t start_ = 0;      // the block's first token
  GroupTables tables_[2];  // of this block and the next
  int current_ = 0;
  bool spoiled_ = false;    // some value's scale is a NaN
  KeyRange factors_of_{};   // columns that value_factors are for
  float mix_scale_ = 0.0f;  // S / 32767 of those

  GroupWalk walk_;
  const std::byte* ahead_[kBlockGroups];  // what to prefetch at each group
};

template <bool kVnni>
void AttendInt8(const AttentionTask& task, float* floats) {
  const Rows rows = RowsOf(task);
  const Int8Scratch scratch(floats, rows.head_dim);
  const Int8Queries queries = QuantizeQueries<kVnni>(
      task, rows,
      {scratch.codes, scratch.offsets, scratch.query_scales, scratch.query});
  Int8Block<kVnni> block(task, rows, queries, scratch);
  AttendBlocks(task, rows, scratch.block, scratch.total,
               [&](int64_t b, const Partial& out)
                   HWY_ATTR { block.Attend(b, out); });
}

}  // namespace

template <bool kVnni>
Int8AttentionKernels Int8Kernels() {
  return {&Int8Scratch::Floats, &AttendInt8<kVnni>};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET <= HWY_AVX2

#if HWY_ONCE
namespace nibble {

Int8AttentionKernels Int8AttentionRow(Isa isa) {
  switch (isa) {
#if HWY_TARGETS & HWY_AVX2
    case Isa::kAvx2:
      return N_AVX2::Int8Kernels<false>();
    case Isa::kAvxVnni:
      return N_AVX2::Int8Kernels<true>();
#endif
#if HWY_TARGETS & HWY_AVX3
    case Isa::kAvx512:
      return N_AVX3::Int8Kernels<false>();
    case Isa::kAvx512Vnni:
      return N_AVX3::Int8Kernels<true>();
#endif
    default:
      CHECK(isa == Isa::kScalar) << IsaName(isa);
      return {&reference::AttendScratchFloats, &reference::AttendInt8};
  }
}

}  // namespace nibble
#endif  // HWY_ONCE
