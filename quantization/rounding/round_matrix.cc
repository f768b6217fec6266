#include "quantization/rounding/round_matrix.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/log/check.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/round_to_nearest.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_kernels.h"
#include "quantization/rounding/group_search.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/coded_matrix.h"
#include "tensor/packed_layout.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// The layout of the rounded weights, where round_to_nearest.h has the grid and
// packed weights may have groups as large.
std::optional<PackedLayout> PlainLayout(MatrixView<const float> weights,
                                        const GridSpec& spec) {
  if (spec.offset == CodeOffset::kMinimums) return std::nullopt;
  const bool symmetric = spec.offset == CodeOffset::kSymmetric;
  const absl::StatusOr<PackedLayout> layout = RoundedLayout(
      {spec.bits, spec.group_size, symmetric}, weights.rows, weights.cols);
  if (!layout.ok()) return std::nullopt;
  return *layout;
}

void RoundPlain(MatrixView<const float> weights, PackedLayout layout,
                ThreadPool& pool, QuantizedMatrix& out) {
  const bool symmetric = layout.symmetric;
  std::atomic<bool> wide{false};
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      if (SurveyRow(weights.row_span(row), layout).needs_wide_scales) {
        wide = true;
      }
    }
  });
  layout.wide_scales = wide;
  const int64_t groups = out.groups();
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    std::vector<uint8_t> zeros(symmetric ? 0 : groups);
    for (int64_t row = begin; row < end; ++row) {
      RoundRow(
          weights.row_span(row), layout,
          {out.row_codes(row), out.scales.span().subspan(row * groups, groups),
           absl::MakeSpan(zeros)});
      if (symmetric) continue;
      std::copy(zeros.begin(), zeros.end(), out.offsets.begin() + row * groups);
    }
  });
}

GroupGrid ChooseGrid(absl::Span<const float> weights, int64_t first,
                     const RoundOptions& options, float ratio) {
  if (!options.search) return FitClippedGroup(weights, ratio, options.spec);
  absl::Span<const float> importance = options.importance;
  if (!importance.empty())
    importance = importance.subspan(first, weights.size());
  return SearchGroup(weights, importance, options.spec, options.search_options);
}

void RoundGroups(absl::Span<const float> weights, int64_t row,
                 const RoundOptions& options, QuantizedMatrix& out) {
  const int64_t size = out.spec.group_inputs(out.inputs);
  const int64_t groups = out.groups();
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * size;
    const absl::Span<const float> part = weights.subspan(first, size);
    const float ratio =
        options.clip.empty() ? 1.0f : options.clip[row * groups + group];
    const GroupGrid grid = ChooseGrid(part, first, options, ratio);
    out.set_grid(row, group, grid);
    EncodeGroup(part, grid, out.spec,
                out.row_codes(row).subspan(first, part.size()));
  }
}

}  // namespace

absl::Status CheckWeights(MatrixView<const float> weights, ThreadPool& pool) {
  std::atomic<int64_t> bad_row{std::numeric_limits<int64_t>::max()};
  const auto in_range = [](float w) {
    return w >= -kMaxRoundedWeight && w <= kMaxRoundedWeight;
  };
  pool.ParallelFor(weights.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const absl::Span<const float> values = weights.row_span(row);
      bool good = true;
      for (const float w : values) good &= in_range(w);
      if (good) continue;
      int64_t first = bad_row;
      while (row < first && !bad_row.compare_exchange_weak(first, row)) {
      }
      return;
    }
  });
  if (bad_row >= weights.rows) return absl::OkStatus();
  const absl::Span<const float> values = weights.row_span(bad_row);
  const auto bad = std::find_if_not(values.begin(), values.end(), in_range);
  return absl::InvalidArgumentError(absl::StrCat(
      "the weight of output ", bad_row.load(), ", input ", bad - values.begin(),
      " is ", *bad, ": only finite numbers up to 2^126 can be rounded"));
}

QuantizedMatrix RoundMatrix(MatrixView<const float> weights,
                            const RoundOptions& options, ThreadPool& pool) {
  const GridSpec& spec = options.spec;
  QuantizedMatrix out(spec, weights.rows, weights.cols);
  DCHECK(options.importance.empty() ||
         static_cast<int64_t>(options.importance.size()) == weights.cols);
  DCHECK(options.clip.empty() || options.clip.size() == out.scales.size());
  DCHECK(options.clip.empty() || !options.search);
  if (!options.search && options.clip.empty()) {
    const std::optional<PackedLayout> layout = PlainLayout(weights, spec);
    if (layout.has_value()) {
      RoundPlain(weights, *layout, pool, out);
      return out;
    }
  }
  pool.ParallelForStealing(
      weights.rows, /*grain=*/1, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
          RoundGroups(weights.row_span(row), row, options, out);
        }
      });
  return out;
}

}  // namespace nibble
