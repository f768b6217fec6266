// GPTQ of kPanelRows rows: the order of columns, groups and blocks.
#ifndef NIBBLE_QUANTIZATION_GPTQ_GPTQ_PANEL_H_
#define NIBBLE_QUANTIZATION_GPTQ_GPTQ_PANEL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "quantization/gptq/damped_factor.h"
#include "quantization/gptq/gptq.h"
#include "quantization/gptq/panel_solver.h"
#include "quantization/rounding/quantized_matrix.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace nibble {

// What all panels of a matrix share.
struct GptqProblem {
  MatrixView<const float> weights;
  const GptqOptions* options = nullptr;
  const DampedFactor* factor = nullptr;
  // [inputs]: of column c, 1 / U_cc^2; with static groups of input c.
  std::vector<float> importance;
};

// One thread's memory, used for one panel after another.
class GptqPanel {
 public:
  explicit GptqPanel(const GptqProblem& problem);

  // Rounds rows [first, first + kPanelRows), as far as there are, into `out`;
  // returns the sum of their squared errors e_c^2.
  double Round(int64_t first, QuantizedMatrix& out);

 private:
  // Columns [begin, end) of a group, where blocks end too.
  void RoundBlock(int64_t begin, int64_t end);
  void FitStaticGroups();
  // Fits the group to `weights` [kPanelRows, inputs of the group].
  void FitGroupOfRows(int64_t group, int64_t begin, int64_t end, bool live);
  void Load();
  void Store(QuantizedMatrix& out) const;
  // The group of column c, and where it begins.
  int64_t GroupOf(int64_t column) const;

  const GptqProblem& problem_;
  const int64_t columns_;
  const int64_t group_inputs_;
  const int64_t block_;
  const bool is_static_;

  int64_t first_ = 0;
  int64_t rows_ = 0;
  Array<float> weights_;                     // [columns, kPanelRows], live
  Array<float> errors_;                      // [block, kPanelRows]
  Array<uint8_t> codes_;                     // [columns, kPanelRows]
  std::vector<PanelGrid> grids_;             // [groups]
  std::vector<GroupGrid> row_grids_;         // [groups, kPanelRows]
  std::vector<float> group_weights_;         // [inputs of a group]
  alignas(64) float loss_[kPanelRows] = {};  // sums of e_c^2 over a strip
  double squared_errors_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_GPTQ_GPTQ_PANEL_H_
