#include "kernels/matmul/minimums.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/matmul/panel_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/minimums.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "kernels/matmul/fused-inl.h"

// Loops over registers: the compiler must unroll them completely.
#ifndef NIBBLE_UNROLL
#define NIBBLE_UNROLL _Pragma("GCC unroll 32")
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kTileOutputs>;
using VF = hn::Vec<Floats>;
inline constexpr int64_t kLanes = hn::MaxLanes(Floats());

// The register budget: with 32 registers, 12 rows x 2 vectors of outputs make
// 24 sums; with 16, 6 x 2 make 12.
inline constexpr int kMaxRows = HWY_CAP_GE512 ? 12 : 6;

// Vectors of outputs taken together by `rows` rows. Each sum is a chain of
// fused multiply-adds, of which 8 must be under way to keep two pipes busy.
constexpr int VectorsTogether(int rows) {
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

// Some rows and some vectors of outputs, from an output of one record on.
struct Strip {
  const std::byte* minimums;  // of the record's first output
  int64_t record_bytes;
  int64_t groups;
  const float* group_sums;  // [rows][groups]
  float* totals;            // [rows][stride]
  int64_t stride;
};

template <bool kWide>
HWY_INLINE VF LoadMinimums(const std::byte* minimums, int64_t index) {
  const Floats d;
  if constexpr (kWide) {
    return hn::Load(d, reinterpret_cast<const float*>(minimums) + index);
  } else {
    const hn::Rebind<hwy::float16_t, Floats> d16;
    return hn::PromoteTo(
        d, hn::Load(d16,
                    reinterpret_cast<const hwy::float16_t*>(minimums) + index));
  }
}

template <bool kWide, int kRows, int kVectors>
void AddStrip(const Strip& strip) {
  const Floats d;
  VF sums[kRows][kVectors];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = hn::LoadU(d, strip.totals + r * strip.stride + v * kLanes);
    }
  }
  const std::byte* const minimums = strip.minimums;
  const int64_t record_bytes = strip.record_bytes;
  const float* const group_sums = strip.group_sums;
  const int64_t groups = strip.groups;
  for (int64_t g = 0; g < groups; ++g) {
    VF w[kVectors];
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t output = v * kLanes;
      w[v] =
          LoadMinimums<kWide>(minimums + output / kRecordOutputs * record_bytes,
                              g * kRecordOutputs + output % kRecordOutputs);
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VF x = hn::Set(d, group_sums[r * groups + g]);
      NIBBLE_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = FusedMulAdd(d, w[v], x, sums[r][v]);
    }
  }
  float* const totals = strip.totals;
  const int64_t stride = strip.stride;
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[r][v], d, totals + r * stride + v * kLanes);
    }
  }
}

using StripFunction = void (*)(const Strip&);

struct ChosenStrip {
  StripFunction add;
  int64_t outputs;
};

// The widest strip of kRows rows within `outputs`.
template <bool kWide, int kRows, int kVectors = VectorsTogether(kRows)>
ChosenStrip ChooseStrip(int64_t outputs) {
  if constexpr (kVectors > 2) {
    if (kVectors * kLanes > outputs) {
      return ChooseStrip<kWide, kRows, kVectors / 2>(outputs);
    }
  }
  return {&AddStrip<kWide, kRows, kVectors>, kVectors * kLanes};
}

template <bool kWide, int... kRowsMinusOne>
ChosenStrip ChooseStrip(int64_t rows, int64_t outputs,
                        std::integer_sequence<int, kRowsMinusOne...>) {
  ChosenStrip chosen = {};
  ((rows == kRowsMinusOne + 1
        ? void(chosen = ChooseStrip<kWide, kRowsMinusOne + 1>(outputs))
        : void()),
   ...);
  return chosen;
}

template <bool kWide>
void AddAll(const Product& product, int64_t first, int64_t end, Totals totals) {
  constexpr auto kAllRows = std::make_integer_sequence<int, kMaxRows>();
  const PackedLayout& layout = *product.layout;
  const RowGroups blocks(product.panel.groups.rows, kMaxRows);
  const int64_t outputs = (end - first) * kRecordOutputs;
  Strip strip;
  strip.record_bytes = layout.record_bytes();
  strip.groups = layout.groups();
  strip.stride = totals.stride;
  const std::byte* const minimums =
      product.weights + first * strip.record_bytes + layout.minimums_offset();
  // The group sums of a block of rows stay in L1 for all records.
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t row = blocks.Begin(block);
    strip.group_sums = product.panel.group_sums + row * strip.groups;
    for (int64_t n = 0; n < outputs;) {
      strip.minimums = minimums + n / kRecordOutputs * strip.record_bytes +
                       n % kRecordOutputs * layout.scale_bytes();
      strip.totals = totals.data + row * totals.stride + n;
      const ChosenStrip chosen =
          ChooseStrip<kWide>(blocks.Size(block), outputs - n, kAllRows);
      chosen.add(strip);
      n += chosen.outputs;
    }
  }
}

void AddMinimumsHere(const Product& product, int64_t first, int64_t end,
                     Totals totals) {
  if (product.layout->wide_scales) {
    AddAll<true>(product, first, end, totals);
  } else {
    AddAll<false>(product, first, end, totals);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
namespace {

HWY_EXPORT(AddMinimumsHere);

// Below this the work, about 1 ns a sum, is cheaper than sharing it.
constexpr int64_t kParallelSums = 4096;

}  // namespace

int64_t GroupSumBytes(const PackedLayout& layout, int64_t rows) {
  return CeilDiv(rows * layout.groups() * static_cast<int64_t>(sizeof(float)),
                 kStepBytes) *
         kStepBytes;
}

void SumGroups(const Panel& panel, const PackedLayout& layout,
               float* group_sums, ThreadPool& pool) {
  const int64_t groups = layout.groups();
  const auto sum = [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = panel.groups.Begin(i);
      const int64_t rows = panel.groups.Size(i);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t at = first * groups + g * rows + r;
          group_sums[(first + r) * groups + g] =
              panel.scales[at] * static_cast<float>(-panel.minus_sums[at]);
        }
      }
    }
  };
  if (panel.groups.rows * groups < kParallelSums) {
    sum(0, panel.groups.count, 0);
  } else {
    pool.ParallelFor(panel.groups.count, sum);
  }
}

void AddMinimums(const Product& product, int64_t first, int64_t end,
                 Totals totals) {
  HWY_DYNAMIC_DISPATCH(AddMinimumsHere)(product, first, end, totals);
}

}  // namespace nibble
#endif  // HWY_ONCE
