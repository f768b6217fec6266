#include "quantization/gptq/gptq_panel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/log/check.h"
#include "absl/types/span.h"
#include "quantization/gptq/damped_factor.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/panel_grid.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/group_search.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"

namespace nibble {
namespace {

int64_t RoundUp(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Whole groups where a block holds some, so that a group begins with a block.
// Blocks begin at multiples of kStripColumns in any case.
int64_t BlockColumns(const GptqOptions& options, int64_t columns,
                     int64_t group_inputs, bool is_static) {
  const int64_t most = RoundUp(columns, group_inputs);
  const int64_t block = RoundUp(std::min(options.block, most), kStripColumns);
  if (is_static || block < group_inputs) return block;
  return block / group_inputs * group_inputs;
}

}  // namespace

GptqPanel::GptqPanel(const GptqProblem& problem)
    : problem_(problem),
      columns_(problem.weights.cols),
      group_inputs_(problem.options->spec.group_inputs(columns_)),
      block_(BlockColumns(*problem.options, columns_, group_inputs_,
                          problem.options->static_groups)),
      is_static_(problem.options->static_groups),
      weights_(
          static_cast<size_t>(RoundUp(columns_, kStripColumns) * kPanelRows)),
      errors_(static_cast<size_t>(block_ * kPanelRows)),
      codes_(static_cast<size_t>(columns_ * kPanelRows)),
      grids_(problem.options->spec.groups(columns_)),
      row_grids_(grids_.size() * kPanelRows),
      group_weights_(group_inputs_) {}

double GptqPanel::Round(int64_t first, QuantizedMatrix& out) {
  first_ = first;
  rows_ = std::min(kPanelRows, problem_.weights.rows - first);
  squared_errors_ = 0;
  Load();
  if (is_static_) FitStaticGroups();
  for (int64_t begin = 0; begin < columns_;) {
    int64_t end = std::min(begin + block_, columns_);
    if (!is_static_ && block_ < group_inputs_) {
      end = std::min(end, (begin / group_inputs_ + 1) * group_inputs_);
    }
    RoundBlock(begin, end);
    PanelUpdate update;
    update.factor = &problem_.factor->factor;
    update.first = begin;
    update.last = end;
    update.errors = errors_.data();
    UpdateColumns(update, end, columns_, weights_.data());
    begin = end;
  }
  Store(out);
  return squared_errors_;
}

void GptqPanel::Load() {
  const std::vector<int32_t>& order = problem_.factor->order;
  std::fill(weights_.begin(), weights_.end(), 0.0f);
  for (int64_t r = 0; r < rows_; ++r) {
    const float* from = problem_.weights.row(first_ + r);
    for (int64_t c = 0; c < columns_; ++c) {
      weights_[c * kPanelRows + r] = from[order[c]];
    }
  }
}

int64_t GptqPanel::GroupOf(int64_t column) const {
  return (is_static_ ? problem_.factor->order[column] : column) / group_inputs_;
}

void GptqPanel::RoundBlock(int64_t begin, int64_t end) {
  PanelUpdate update;
  update.factor = &problem_.factor->factor;
  for (int64_t strip = begin; strip < end; strip += kStripColumns) {
    const int64_t strip_end = std::min(strip + kStripColumns, end);
    std::fill_n(loss_, kPanelRows, 0.0f);
    for (int64_t c = strip; c < strip_end; ++c) {
      const int64_t group = GroupOf(c);
      if (!is_static_ && c == group * group_inputs_) {
        FitGroupOfRows(group, c, std::min(c + group_inputs_, columns_),
                       /*live=*/true);
      }
      float* errors = errors_.data() + (c - begin) * kPanelRows;
      RoundColumn(weights_.data() + c * kPanelRows, grids_[group],
                  problem_.factor->factor.at(c, c),
                  codes_.data() + c * kPanelRows, errors, loss_);
      update.first = c;
      update.last = c + 1;
      update.errors = errors;
      UpdateColumns(update, c + 1, strip_end, weights_.data());
    }
    update.first = strip;
    update.last = strip_end;
    update.errors = errors_.data() + (strip - begin) * kPanelRows;
    UpdateColumns(update, strip_end, end, weights_.data());
    // By strips, which are the same whatever the blocks.
    for (int64_t r = 0; r < rows_; ++r) squared_errors_ += loss_[r];
  }
}

void GptqPanel::FitStaticGroups() {
  for (size_t group = 0; group < grids_.size(); ++group) {
    const int64_t begin = static_cast<int64_t>(group) * group_inputs_;
    FitGroupOfRows(static_cast<int64_t>(group), begin,
                   std::min(begin + group_inputs_, columns_), /*live=*/false);
  }
}

void GptqPanel::FitGroupOfRows(int64_t group, int64_t begin, int64_t end,
                               bool live) {
  const GptqOptions& options = *problem_.options;
  const absl::Span<float> part =
      absl::MakeSpan(group_weights_).subspan(0, end - begin);
  const absl::Span<const float> importance =
      absl::MakeConstSpan(problem_.importance).subspan(begin, end - begin);
  for (int64_t r = 0; r < kPanelRows; ++r) {
    GroupGrid grid;  // of rows that there are not
    if (r < rows_) {
      for (int64_t c = begin; c < end; ++c) {
        part[c - begin] = live ? weights_[c * kPanelRows + r]
                               : problem_.weights.row(first_ + r)[c];
      }
      grid = options.search ? SearchGroup(part, importance, options.spec,
                                          options.search_options)
                            : FitGroup(part, options.spec);
    }
    SetPanelRow(grid, options.spec, r, grids_[group]);
    row_grids_[group * kPanelRows + r] = grid;
  }
}

void GptqPanel::Store(QuantizedMatrix& out) const {
  const std::vector<int32_t>& order = problem_.factor->order;
  for (int64_t r = 0; r < rows_; ++r) {
    const absl::Span<uint8_t> codes = out.row_codes(first_ + r);
    for (int64_t c = 0; c < columns_; ++c) {
      codes[is_static_ ? order[c] : c] = codes_[c * kPanelRows + r];
    }
    for (int64_t group = 0; group < out.groups(); ++group) {
      out.set_grid(first_ + r, group, row_grids_[group * kPanelRows + r]);
    }
  }
}

}  // namespace nibble
