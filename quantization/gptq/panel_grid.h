// A group's grids of all rows of a panel, from those of single rows.
#ifndef NIBBLE_QUANTIZATION_GPTQ_PANEL_GRID_H_
#define NIBBLE_QUANTIZATION_GPTQ_PANEL_GRID_H_

#include <cstdint>

#include "quantization/gptq/panel_solver.h"
#include "quantization/rounding/grid.h"
#include "tensor/coded_matrix.h"

namespace nibble {

inline void SetPanelRow(const GroupGrid& grid, const GridSpec& spec,
                        int64_t row, PanelGrid& out) {
  const bool minimums = spec.offset == CodeOffset::kMinimums;
  const float zero = minimums ? 0.0f : grid.offset;
  const bool flat = grid.scale == 0.0f;
  out.divisor[row] = flat ? 1.0f : grid.scale;
  out.scale[row] = grid.scale;
  out.shift[row] = minimums ? grid.offset : 0.0f;
  out.low[row] = flat ? 0.0f : static_cast<float>(spec.min_code()) - zero;
  out.high[row] = flat ? 0.0f : static_cast<float>(spec.max_code()) - zero;
  out.zero[row] = zero;
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_PANEL_GRID_H_
