// Refines codes and scales that are there already, towards the least loss on
// the calibration inputs: coordinate descent.
//
//   const RefineProblem problem =
//       MakeRefineProblem(weights, spec, gram, order, damping, pool);
//   RefinePanel panel(problem);
//   panel.Refine(/*first=*/0, matrix);        // rows 0 to kPanelRows - 1
//
// With d = w - decoded and the damped second moments H the loss of a row is
// d H d^T. One round
//
// 1. gives each group, one after another, the scale (and minimum) of least
//    loss, every code and every other group as they are,
// 2. gives each weight, one after another, the code of least loss.
//
// No step makes the loss larger, but for f32's rounding. Both need only the
// slope d H, which is kept up to date. (Codes alone: QuantEase, Behdin et al.,
// arXiv 2309.01885.)
#ifndef NIBBLE_QUANTIZATION_GPTQ_REFINE_H_
#define NIBBLE_QUANTIZATION_GPTQ_REFINE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "quantization/gptq/gram.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/rounding/grid.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// Shared by all panels of a matrix. Columns are the matrix's codes: column c is
// input order[c].
struct RefineProblem {
  MatrixView<const float> weights;
  GridSpec spec;
  std::vector<int32_t> order;    // [inputs]
  StripMatrix moments;           // damped H
  std::vector<float> curvature;  // [inputs], its diagonal
  // [groups]: 1 H 1^T within the group; empty unless the grids have minimums.
  std::vector<double> group_sums;
  int rounds = 1;
};

// damping: what the factor used. order: as above.
RefineProblem MakeRefineProblem(MatrixView<const float> weights,
                                const GridSpec& spec, const Gram& gram,
                                absl::Span<const int32_t> order, double damping,
                                ThreadPool& pool);

// One thread's memory.
class RefinePanel {
 public:
  explicit RefinePanel(const RefineProblem& problem);

  // Rows [first, first + kPanelRows) of the matrix, as far as there are.
  void Refine(int64_t first, QuantizedMatrix& matrix);

 private:
  void Load(const QuantizedMatrix& matrix);
  void Store(QuantizedMatrix& matrix) const;
  void FitScales();
  void FitGroup(int64_t group);
  void DescendCodes();
  // values -= moved H, of moves [first, last), in columns [begin, end).
  void Apply(int64_t first, int64_t last, int64_t begin, int64_t end,
             float* values);
  int64_t GroupEnd(int64_t group) const;

  const RefineProblem& problem_;
  const int64_t columns_;
  const int64_t group_inputs_;

  int64_t first_ = 0;
  int64_t rows_ = 0;
  Array<float> slope_;    // [columns, kPanelRows]
  Array<float> steps_;    // [columns, kPanelRows]
  Array<float> moved_;    // [columns, kPanelRows]
  Array<float> scratch_;  // [columns, kPanelRows]
  std::vector<PanelGrid> grids_;
  std::vector<GroupGrid> row_grids_;  // [groups, kPanelRows]
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_REFINE_H_
