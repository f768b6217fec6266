// GPTQ's inner loops: some rows of the weights, column by column.
//
// Weights stand transposed, [columns, kPanelRows], so that a vector holds one
// column of many rows. A column c is rounded on its rows' grids and leaves
// errors e_c = (w_c - rounded) / U_cc; every later column k becomes
// w_k - U_ck e_c. Each weight's
// updates happen in the order of c with one rounding each, whatever the blocks:
// those decide only how much of it happens at a time.
#ifndef NIBBLE_QUANTIZATION_GPTQ_PANEL_SOLVER_H_
#define NIBBLE_QUANTIZATION_GPTQ_PANEL_SOLVER_H_

#include <cstdint>

#include "tensor/buffer.h"

namespace nibble {

inline constexpr int64_t kPanelRows = 64;
// Columns that are updated together: accumulators times two vectors of rows.
inline constexpr int64_t kStripColumns = 8;

// A square matrix as the loops read it: strips of kStripColumns columns, each
// [rows, kStripColumns]; of an upper triangular one, rows down to the strip's
// end.
class StripMatrix {
 public:
  enum class Shape { kUpper, kSquare };

  StripMatrix() = default;
  // Zeros.
  StripMatrix(int64_t columns, Shape shape);

  int64_t columns() const { return columns_; }
  int64_t strips() const {
    return (columns_ + kStripColumns - 1) / kStripColumns;
  }
  bool empty() const { return values_.empty(); }
  // Row 0 of columns [strip * 8, strip * 8 + 8).
  float* strip(int64_t strip) { return values_.data() + StripOffset(strip); }
  const float* strip(int64_t strip) const {
    return values_.data() + StripOffset(strip);
  }
  float at(int64_t row, int64_t column) const {
    return strip(column /
                 kStripColumns)[row * kStripColumns + column % kStripColumns];
  }

 private:
  int64_t StripOffset(int64_t strip) const {
    return shape_ == Shape::kSquare
               ? strip * columns_ * kStripColumns
               : strip * (strip + 1) / 2 * kStripColumns * kStripColumns;
  }

  int64_t columns_ = 0;
  Shape shape_ = Shape::kUpper;
  Array<float> values_;
};

// A group's grids of all rows of a panel. A row without steps (scale 0) has
// divisor 1 and low = high = 0.
struct PanelGrid {
  alignas(64) float divisor[kPanelRows];
  alignas(64) float scale[kPanelRows];
  alignas(64) float shift[kPanelRows];  // the minimum, or 0
  alignas(64) float low[kPanelRows];    // least and greatest number of steps
  alignas(64) float high[kPanelRows];
  alignas(64) float zero[kPanelRows];  // code = steps + zero
};

// Rounds one column. weights, errors: [kPanelRows]; adds errors^2 to loss.
void RoundColumn(const float* weights, const PanelGrid& grid, float diagonal,
                 uint8_t* codes, float* errors, float* loss);

// Moves one column to the codes of least loss, all else fixed: by the slope
// (half of the loss's derivative, downwards) and the curvature H_cc of the
// loss. steps: code - zero, changed in place; moved: by how much the weights
// grew. A code stays where floats cannot tell: the slope is NaN, or curvature
// times scale is 0 (both so small that the product underflows).
void DescendColumn(const float* slope, const PanelGrid& grid, float curvature,
                   float* steps, float* moved);

// Columns that have been rounded, and what they do to others.
struct PanelUpdate {
  const StripMatrix* factor = nullptr;  // U, or H
  int64_t first = 0, last = 0;          // the columns
  const float* errors = nullptr;        // [last - first, kPanelRows]
};

// Applies it to columns [begin, end); with triangular matrices last <= begin.
// weights: [columns, kPanelRows], all of the panel's.
void UpdateColumns(const PanelUpdate& update, int64_t begin, int64_t end,
                   float* weights);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_PANEL_SOLVER_H_
