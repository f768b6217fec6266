// Finding one key block of a KV head in the pages of an int8 cache. Included
// once per Highway target.

#if defined(NIBBLE_KERNELS_ATTENTION_INT8_GROUPS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_KERNELS_ATTENTION_INT8_GROUPS_INL_H_
#undef NIBBLE_KERNELS_ATTENTION_INT8_GROUPS_INL_H_
#else
#define NIBBLE_KERNELS_ATTENTION_INT8_GROUPS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "hwy/highway.h"
#include "kernels/attention/attention_task.h"
#include "kernels/attention/int8_dot-inl.h"
#include "kernels/attention/int8_page.h"
#include "kernels/attention/kv_view.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Groups of one block's keys or values, and where their scales lie.
struct GroupTable {
  KeyRange range;  // of groups that hold tokens some row sees
  const std::byte* groups[kBlockGroups];
  const std::byte* scales[kBlockGroups];  // of 16 tokens, bf16
};

// All entries become valid; those outside the range repeat one inside.
// tokens: within one block, not empty.
HWY_INLINE void FillGroups(const KvView& kv, absl::Span<std::byte* const> pages,
                           int64_t kv_head, KeyRange tokens,
                           GroupTable& table) {
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
HWY_INLINE bool LoadScales(const GroupTable& table, KeyRange columns,
                           float* scales) {
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

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#endif  // NIBBLE_KERNELS_ATTENTION_INT8_GROUPS_INL_H_
