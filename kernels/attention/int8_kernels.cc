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
#include "kernels/attention/int8_softmax-inl.h"
#include "kernels/attention/int8_tiles-inl.h"
#include "kernels/attention/join-inl.h"
#include "kernels/attention/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kMaxTileRows = 6;

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

template <bool kVnni>
Int8Queries QuantizeQueries(const AttentionTask& task, const Rows& rows,
                            const Int8Scratch& scratch) {
  const int64_t stride = 2 * rows.stride;
  std::fill_n(scratch.query, rows.stride, 0.0f);
  for (int64_t r = 0; r < rows.count; ++r) {
    const float* from =
        task.sequence->q.row((task.row_begin + r) / rows.group) +
        HeadOf(task, rows, r) * rows.head_dim;
    std::copy_n(from, rows.head_dim, scratch.query);
    const float scale =
        QuantizeQuery<kVnni>(scratch.query, rows.head_dim, rows.stride,
                             scratch.codes + r * stride, scratch.offsets + r);
    scratch.query_scales[r] = scale * (task.params->scale * kScoreUnit);
  }
  return {scratch.codes, scratch.offsets, scratch.query_scales, stride,
          (rows.head_dim + 3) / 4};
}

// Groups of one block's keys or values, and where their scales lie.
struct GroupTable {
  KeyRange range;  // of groups that hold tokens some row sees
  const std::byte* groups[kBlockGroups];
  const std::byte* scales[kBlockGroups];  // of 16 tokens, bf16
};

// All entries become valid; those outside the range repeat one inside.
// tokens: within one block, not empty.
void FillGroups(const KvView& kv, absl::Span<std::byte* const> pages,
                int64_t kv_head, KeyRange tokens, GroupTable& table) {
  const Int8Page layout{kv.kv_heads, kv.head_dim, kv.page_tokens};
  const int64_t start = tokens.begin / kKeyBlock * kKeyBlock;
  table.range = {(tokens.begin - start) / kInt8Group,
                 (tokens.end - start + kInt8Group - 1) / kInt8Group};
  const int64_t first = start + table.range.begin * kInt8Group;
  int64_t page = first / kv.page_tokens;
  int64_t slot = first % kv.page_tokens;
  const auto fill = [&](int64_t g) {
    table.groups[g] = pages[page] + layout.Group(kv_head, slot);
    table.scales[g] = pages[page] + layout.Scale(kv_head, slot);
  };
  for (int64_t g = 0; g <= table.range.begin; ++g) fill(g);
  for (int64_t g = table.range.begin + 1; g < table.range.end; ++g) {
    slot += kInt8Group;
    if (slot == kv.page_tokens) {
      slot = 0;
      ++page;
    }
    fill(g);
  }
  for (int64_t g = table.range.end; g < kBlockGroups; ++g) fill(g);
}

// scales [kKeyBlock] of the table's groups, zero for tokens outside `columns`.
// True if one of the others is a NaN; kClean makes that zero.
template <bool kClean>
bool LoadScales(const GroupTable& table, KeyRange columns, float* scales) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t g = table.range.begin; g < table.range.end; ++g) {
    for (int64_t i = 0; i < kInt8Group; i += N) {
      const auto bits = hn::LoadU(
          d16, reinterpret_cast<const uint16_t*>(table.scales[g]) + i);
      hn::Store(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits))), d,
                scales + g * kInt8Group + i);
    }
  }
  std::fill(scales, scales + columns.begin, 0.0f);
  std::fill(scales + columns.end, scales + kKeyBlock, 0.0f);
  if constexpr (!kClean) return false;
  auto spoiled = hn::MaskFalse(d);
  for (int64_t i = table.range.begin * kInt8Group;
       i < table.range.end * kInt8Group; i += N) {
    const auto scale = hn::Load(d, scales + i);
    const auto nan = hn::IsNaN(scale);
    hn::Store(hn::IfThenZeroElse(nan, scale), d, scales + i);
    spoiled = hn::Or(spoiled, nan);
  }
  return !hn::AllFalse(d, spoiled);
}

// One key block of a task.
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

  void Attend(int64_t block, const Partial& out) {
    const KvView& kv = task_.sequence->kv;
    start_ = block * kKeyBlock;
    const KeyRange tokens = TokensOf(block);
    const KeyRange columns{tokens.begin - start_, tokens.end - start_};
    FillGroups(kv, kv.key_pages, task_.kv_head, tokens, keys_);
    FillGroups(kv, kv.value_pages, task_.kv_head, tokens, values_);
    LoadScales</*kClean=*/false>(keys_, columns, scratch_.key_scales);
    spoiled_ =
        LoadScales</*kClean=*/true>(values_, columns, scratch_.value_scales);
    factors_of_ = {0, 0};
    for (int64_t t = 0; t < tiles_; ++t) WeighTile(t, out);

    next_keys_.range = {0, 0};
    if (block + 1 < task_.block_end) {
      FillGroups(kv, kv.key_pages, task_.kv_head, TokensOf(block + 1),
                 next_keys_);
      PrefetchScales(next_keys_);
    }
    for (int64_t t = 0; t < tiles_; ++t) MixTile(t, out);
  }

 private:
  KeyRange TokensOf(int64_t block) const {
    const int64_t start = block * kKeyBlock;
    return {std::max(rows_.any.begin, start),
            std::min(rows_.any.end, start + kKeyBlock)};
  }
  int64_t TileBegin(int64_t t) const { return rows_.count * t / tiles_; }

  // Columns of the block that some row of a tile sees.
  KeyRange TileColumns(int64_t t) const {
    const int64_t first = TileBegin(t);
    const KeyRange any = KeysOfGroup(rows_, first, TileBegin(t + 1) - first,
                                     start_, start_ + kKeyBlock)
                             .any;
    return {any.begin - start_, any.end - start_};
  }
  // Tile t's groups, and its share of those of `ahead`, by whole tiles.
  GroupWalk Walk(int64_t t, KeyRange columns, const GroupTable& table,
                 const GroupTable& ahead) const {
    const int64_t size = ahead.range.end - ahead.range.begin;
    const auto share = [&](int64_t i) {
      if (i == tiles_) return ahead.range.end;
      return ahead.range.begin + size * i / tiles_ / kTileLines * kTileLines;
    };
    return {{columns.begin / kInt8Group,
             (columns.end + kInt8Group - 1) / kInt8Group},
            table.groups,
            {share(t), share(t + 1)},
            ahead.groups};
  }
  static void PrefetchScales(const GroupTable& table) {
    for (int64_t g = table.range.begin; g < table.range.end; ++g) {
      PrefetchLine(table.scales[g]);
    }
  }

  // Scores and weights of a tile's rows.
  void WeighTile(int64_t t, const Partial& out) {
    const int64_t first = TileBegin(t);
    const int64_t count = TileBegin(t + 1) - first;
    const KeyRange columns = TileColumns(t);
    if (columns.begin < columns.end) {
      Int8Scores<kVnni>(count, queries_.From(first),
                        Walk(t, columns, keys_, values_), scratch_.key_scales,
                        scratch_.scores);
    }
    for (int64_t i = 0; i < count; ++i) {
      WeighRow(first + i, columns, scratch_.scores + i * kKeyBlock, out);
    }
  }

  static int64_t Unit(int64_t column) {
    return column / kWeightUnit * kWeightUnit;
  }

  void WeighRow(int64_t r, KeyRange tile, float* scores, const Partial& out) {
    const KeyRange row{std::max(rows_.begin[r] - start_, int64_t{0}),
                       std::min(rows_.end[r] - start_, kKeyBlock)};
    std::byte* const weights = scratch_.weights + r * kWeightBytes;
    out.max[r] = -std::numeric_limits<float>::infinity();
    out.sum[r] = 0.0f;
    scratch_.mix_scales[r] = 0.0f;
    if (row.begin >= row.end) {
      ClearWeights(Unit(tile.begin), tile.end, weights);
      return;
    }
    const int64_t unit_end =
        (row.end + kWeightUnit - 1) / kWeightUnit * kWeightUnit;
    ClearWeights(Unit(tile.begin), Unit(row.begin), weights);
    ClearWeights(unit_end, tile.end, weights);
    SetFactors(row);
    const float* slopes = task_.params->alibi_slopes;
    const int64_t position =
        task_.sequence->first_position + (task_.row_begin + r) / rows_.group;
    const Int8Row finish{
        row.begin, row.end,
        slopes == nullptr ? 0.0f : slopes[HeadOf(task_, rows_, r)] * kScoreUnit,
        start_ - position};
    out.max[r] = FinishScores(finish, scores);
    out.sum[r] = WeighInt8Row<kVnni>(finish, scores, out.max[r],
                                     scratch_.value_factors, weights);
    scratch_.mix_scales[r] = mix_scale_;
    if (spoiled_ && SeesNan(row)) {
      out.sum[r] = std::numeric_limits<float>::quiet_NaN();
    }
  }

  // Zeroes the weights of the units from `begin` on that start before `end`.
  static void ClearWeights(int64_t begin, int64_t end, std::byte* weights) {
    end = (end + kWeightUnit - 1) / kWeightUnit * kWeightUnit;
    if (begin >= end) return;
    const size_t count = static_cast<size_t>(end - begin);
    if constexpr (kVnni) {
      std::memset(weights + begin, 0, count);
      std::memset(weights + kKeyBlock + begin, 0, count);
    } else {
      std::memset(weights + 2 * begin, 0, 2 * count);
    }
  }

  // value_factors and mix_scale_ for rows that see these columns.
  void SetFactors(KeyRange columns) {
    if (columns.begin == factors_of_.begin && columns.end == factors_of_.end) {
      return;
    }
    factors_of_ = columns;
    const hn::ScalableTag<float> d;
    const int64_t N = static_cast<int64_t>(hn::Lanes(d));
    float* const factors = scratch_.value_factors;
    std::copy_n(scratch_.value_scales, kKeyBlock, factors);
    std::fill(factors, factors + columns.begin, 0.0f);
    std::fill(factors + columns.end, factors + kKeyBlock, 0.0f);
    auto max = hn::Zero(d);
    for (int64_t i = 0; i < kKeyBlock; i += N) {
      max = hn::Max(max, hn::Load(d, factors + i));
    }
    const float largest = hn::ReduceMax(d, max);
    const auto to_weight =
        hn::Set(d, largest == 0.0f ? 0.0f : kMaxWeight / largest);
    for (int64_t i = 0; i < kKeyBlock; i += N) {
      hn::Store(hn::Mul(hn::Load(d, factors + i), to_weight), d, factors + i);
    }
    mix_scale_ = largest * (1.0f / kMaxWeight);
  }

  // True if the value of a token in these columns has a NaN for its scale.
  bool SeesNan(KeyRange columns) const {
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      BF16 scale;
      std::memcpy(&scale,
                  values_.scales[c / kInt8Group] +
                      c % kInt8Group * static_cast<int64_t>(sizeof(scale)),
                  sizeof(scale));
      if ((scale.bits & 0x7FFF) > 0x7F80) return true;
    }
    return false;
  }

  void MixTile(int64_t t, const Partial& out) {
    const KeyRange columns = TileColumns(t);
    if (columns.begin >= columns.end) return;
    const int64_t first = TileBegin(t);
    Int8Mix<kVnni>(
        TileBegin(t + 1) - first,
        {scratch_.weights + first * kWeightBytes, scratch_.mix_scales + first},
        Walk(t, columns, values_, next_keys_), rows_.stride,
        out.mix + first * rows_.stride);
  }

  const AttentionTask& task_;
  const Rows& rows_;
  const Int8Queries& queries_;
  const Int8Scratch& scratch_;
  int64_t tiles_;  // of rows

  int64_t start_ = 0;  // the block's first token
  GroupTable keys_;
  GroupTable values_;
  GroupTable next_keys_;    // of the block after it
  bool spoiled_ = false;    // some value's scale is a NaN
  KeyRange factors_of_{};   // columns that value_factors are for
  float mix_scale_ = 0.0f;  // S / 32767 of those
};

template <bool kVnni>
void AttendInt8(const AttentionTask& task, float* floats) {
  const Rows rows = RowsOf(task);
  const Int8Scratch scratch(floats, rows.head_dim);
  const Int8Queries queries = QuantizeQueries<kVnni>(task, rows, scratch);
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
