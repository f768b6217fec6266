#include "quantization/gptq/refine.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/damped_factor.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/panel_grid.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/coded_matrix.h"
#include "tensor/view.h"

namespace nibble {
namespace {

// Columns whose moves are applied to the others together: as many as keep the
// moves (128 x 64 floats) in the first-level cache.
constexpr int64_t kBlock = 128;

StripMatrix PackSquare(MatrixView<const float> matrix,
                       absl::Span<const int32_t> order, ThreadPool& pool) {
  StripMatrix out(matrix.rows, StripMatrix::Shape::kSquare);
  pool.ParallelForStealing(
      out.strips(), /*grain=*/1, [&](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s) {
          const int64_t first = s * kStripColumns;
          const int64_t last = std::min(first + kStripColumns, matrix.rows);
          for (int64_t i = 0; i < matrix.rows; ++i) {
            const float* from = matrix.row(order[i]);
            float* to = out.strip(s) + i * kStripColumns - first;
            for (int64_t j = first; j < last; ++j) {
              to[j] = from[order[j]];
            }
          }
        }
      });
  return out;
}

std::vector<double> GroupSums(const StripMatrix& moments, const GridSpec& spec,
                              ThreadPool& pool) {
  const int64_t columns = moments.columns();
  const int64_t size = spec.group_inputs(columns);
  std::vector<double> sums(static_cast<size_t>(spec.groups(columns)));
  pool.ParallelForStealing(
      spec.groups(columns), /*grain=*/1, [&](int64_t first, int64_t last, int) {
        for (int64_t group = first; group < last; ++group) {
          const int64_t begin = group * size;
          const int64_t end = std::min(columns, begin + size);
          double sum = 0;
          for (int64_t i = begin; i < end; ++i) {
            for (int64_t j = begin; j < end; ++j) sum += moments.at(i, j);
          }
          sums[group] = sum;
        }
      });
  return sums;
}

}  // namespace

RefineProblem MakeRefineProblem(MatrixView<const float> weights,
                                const GridSpec& spec, const Gram& gram,
                                absl::Span<const int32_t> order, double damping,
                                ThreadPool& pool) {
  RefineProblem problem;
  problem.weights = weights;
  problem.spec = spec;
  problem.order.assign(order.begin(), order.end());
  problem.moments = PackSquare(gram.mean(), order, pool);
  const MomentDiagonal diagonal = DiagonalOf(gram);
  for (int64_t c = 0; c < weights.cols; ++c) {
    const float value =
        static_cast<float>(diagonal.values[order[c]] + damping * diagonal.mean);
    problem.moments.strip(
        c / kStripColumns)[c * kStripColumns + c % kStripColumns] = value;
    problem.curvature.push_back(value);
  }
  if (spec.offset == CodeOffset::kMinimums) {
    problem.group_sums = GroupSums(problem.moments, spec, pool);
  }
  return problem;
}

RefinePanel::RefinePanel(const RefineProblem& problem)
    : problem_(problem),
      columns_(problem.weights.cols),
      group_inputs_(problem.spec.group_inputs(columns_)),
      slope_(static_cast<size_t>((columns_ + kStripColumns) * kPanelRows)),
      steps_(slope_.size()),
      moved_(slope_.size()),
      scratch_(slope_.size()),
      grids_(problem.spec.groups(columns_)),
      row_grids_(grids_.size() * kPanelRows) {}

int64_t RefinePanel::GroupEnd(int64_t group) const {
  return std::min(columns_, (group + 1) * group_inputs_);
}

void RefinePanel::Refine(int64_t first, QuantizedMatrix& matrix) {
  first_ = first;
  rows_ = std::min(kPanelRows, problem_.weights.rows - first);
  Load(matrix);
  for (int round = 0; round < problem_.rounds; ++round) {
    FitScales();
    DescendCodes();
  }
  Store(matrix);
}

void RefinePanel::Apply(int64_t first, int64_t last, int64_t begin, int64_t end,
                        float* values) {
  PanelUpdate update;
  update.factor = &problem_.moments;
  update.first = first;
  update.last = last;
  update.errors = moved_.data() + first * kPanelRows;
  UpdateColumns(update, begin, end, values);
}

void RefinePanel::Load(const QuantizedMatrix& matrix) {
  for (Array<float>* values : {&slope_, &steps_, &moved_}) {
    std::fill(values->begin(), values->end(), 0.0f);
  }
  for (int64_t group = 0; group < static_cast<int64_t>(grids_.size());
       ++group) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const GroupGrid grid =
          r < rows_ ? matrix.grid(first_ + r, group) : GroupGrid();
      row_grids_[group * kPanelRows + r] = grid;
      SetPanelRow(grid, problem_.spec, r, grids_[group]);
    }
  }
  // The slope d H, by moves of decoded - w.
  for (int64_t r = 0; r < rows_; ++r) {
    const float* w = problem_.weights.row(first_ + r);
    const absl::Span<const uint8_t> codes = matrix.row_codes(first_ + r);
    for (int64_t c = 0; c < columns_; ++c) {
      const PanelGrid& grid = grids_[c / group_inputs_];
      const float steps = static_cast<float>(codes[c]) - grid.zero[r];
      steps_[c * kPanelRows + r] = steps;
      moved_[c * kPanelRows + r] =
          grid.scale[r] * steps + grid.shift[r] - w[problem_.order[c]];
    }
  }
  for (int64_t c = 0; c < columns_; c += kBlock) {
    Apply(c, std::min(c + kBlock, columns_), 0, columns_, slope_.data());
  }
}

void RefinePanel::FitScales() {
  for (int64_t group = 0; group < static_cast<int64_t>(grids_.size());
       ++group) {
    FitGroup(group);
    const int64_t end = GroupEnd(group);
    for (int64_t c = group * group_inputs_; c < end; c += kBlock) {
      Apply(c, std::min(c + kBlock, end), 0, columns_, slope_.data());
    }
  }
}

// The loss is quadratic in the change (ds, dm) of scale and minimum: less
// 2 (ds a + dm b), plus ds^2 A + 2 ds dm B + dm^2 C.
void RefinePanel::FitGroup(int64_t group) {
  const bool minimums = problem_.spec.offset == CodeOffset::kMinimums;
  const int64_t begin = group * group_inputs_, end = GroupEnd(group);
  // scratch = steps H within the group.
  std::fill_n(scratch_.data() + begin * kPanelRows, (end - begin) * kPanelRows,
              0.0f);
  for (int64_t i = begin * kPanelRows; i < end * kPanelRows; ++i) {
    moved_[i] = -steps_[i];
  }
  for (int64_t c = begin; c < end; c += kBlock) {
    Apply(c, std::min(c + kBlock, end), begin, end, scratch_.data());
  }
  const double ones = minimums ? problem_.group_sums[group] : 0.0;
  float ds[kPanelRows], dm[kPanelRows];
  for (int64_t r = 0; r < kPanelRows; ++r) {
    double a = 0, b = 0, aa = 0, ab = 0;
    for (int64_t i = begin * kPanelRows + r; i < end * kPanelRows;
         i += kPanelRows) {
      a += double{steps_[i]} * slope_[i];
      b += slope_[i];
      aa += double{steps_[i]} * scratch_[i];
      ab += scratch_[i];
    }
    ds[r] = dm[r] = 0;
    GroupGrid& grid = row_grids_[group * kPanelRows + r];
    if (grid.scale == 0.0f || !(aa > 0)) continue;
    GroupGrid fit = grid;
    if (minimums) {
      const double determinant = aa * ones - ab * ab;
      if (!(determinant > 1e-9 * aa * ones)) continue;
      fit.scale =
          StoredParameter(grid.scale + (a * ones - b * ab) / determinant);
      // The best minimum beside the scale as it is stored.
      fit.offset = StoredParameter(
          grid.offset + (b - (double{fit.scale} - grid.scale) * ab) / ones);
    } else {
      fit.scale = StoredParameter(grid.scale + a / aa);
    }
    const double s = double{fit.scale} - grid.scale;
    const double m = minimums ? double{fit.offset} - grid.offset : 0.0;
    const double gain =
        2 * (s * a + m * b) - (s * s * aa + 2 * s * m * ab + m * m * ones);
    if (!(gain > 0) || fit.scale == 0.0f || !std::isfinite(fit.scale) ||
        !std::isfinite(fit.offset)) {
      continue;
    }
    ds[r] = static_cast<float>(s);
    dm[r] = static_cast<float>(m);
    grid = fit;
    SetPanelRow(fit, problem_.spec, r, grids_[group]);
  }
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      moved_[c * kPanelRows + r] = ds[r] * steps_[c * kPanelRows + r] + dm[r];
    }
  }
}

void RefinePanel::DescendCodes() {
  for (int64_t begin = 0; begin < columns_; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, columns_);
    const int64_t size = (end - begin) * kPanelRows;
    float* slope = slope_.data() + begin * kPanelRows;
    std::copy_n(slope, size, scratch_.data());
    for (int64_t strip = begin; strip < end; strip += kStripColumns) {
      const int64_t strip_end = std::min(strip + kStripColumns, end);
      for (int64_t c = strip; c < strip_end; ++c) {
        DescendColumn(slope_.data() + c * kPanelRows, grids_[c / group_inputs_],
                      problem_.curvature[c], steps_.data() + c * kPanelRows,
                      moved_.data() + c * kPanelRows);
        Apply(c, c + 1, c + 1, strip_end, slope_.data());
      }
      Apply(strip, strip_end, strip_end, end, slope_.data());
    }
    // All moves of the block on all columns, its own among them, at once.
    std::copy_n(scratch_.data(), size, slope);
    Apply(begin, end, 0, columns_, slope_.data());
  }
}

void RefinePanel::Store(QuantizedMatrix& matrix) const {
  for (int64_t r = 0; r < rows_; ++r) {
    const absl::Span<uint8_t> codes = matrix.row_codes(first_ + r);
    for (int64_t c = 0; c < columns_; ++c) {
      const PanelGrid& grid = grids_[c / group_inputs_];
      codes[c] =
          static_cast<uint8_t>(steps_[c * kPanelRows + r] + grid.zero[r]);
    }
    for (int64_t group = 0; group < matrix.groups(); ++group) {
      matrix.set_grid(first_ + r, group, row_grids_[group * kPanelRows + r]);
    }
  }
}

}  // namespace nibble
